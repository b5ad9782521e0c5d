"""What a network costs, read off an abstract trace of its one definition."""

from ffem_jax.moved import forward_from

forward_from(__name__)
