"""What this computer is: its processor, and the devices a trial computes on."""
