"""What can go wrong when a network is exported."""

from ffem_jax.errors import FfemError


class ExportError(FfemError):
    """A network, a format or a folder that cannot be exported. The message is one line and says why."""


class NotRunError(Exception):
    """A file that was written and not run, since its runtime is not here. The message says how to get it."""
