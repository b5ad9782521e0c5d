"""The same network in other libraries, with the weights of ours copied into it."""
