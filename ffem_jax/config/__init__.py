"""From config files and overrides to specs, by Hydra."""

from ffem_jax.moved import forward_from

forward_from(__name__)
