"""Hydra finds its plugins in the namespace package hydra_plugins; what is done stands in ffem_jax.search."""
