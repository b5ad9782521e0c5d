"""The base class of errors that tell the user what to fix."""


class FfemError(ValueError):
    """An error with a one-line message for the user; `ffem` prints it without a traceback and exits with status 2.

    Any other exception is a bug in the package, and keeps its traceback.
    """


def describe_install(extra: str) -> str:
    """Return the command that installs an extra from a checkout: the package is not on an index yet."""
    return f"in the checkout, pip install -c constraints.txt -e '.[{extra}]'"
