from ffem_jax.api import *  # noqa: F403  all names of its __all__

__version__: str
