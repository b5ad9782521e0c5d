"""One line per trial: written, read, and read as specs again."""

from ffem_jax.moved import forward_from

forward_from(__name__)
