"""From config files and overrides to specs, by Hydra."""
