"""The base of every error that tells the user what to mend."""


class FfemError(ValueError):
    """Its message is one line for the user; `ffem` prints it without a traceback and exits with status 2.

    Whatever else is raised is a mistake in the package, and keeps its traceback.
    """


def describe_install(extra: str) -> str:
    """The command that installs an extra of pyproject.toml. It is typed in a checkout: no index has the package yet."""
    return f"in the checkout, pip install -c constraints.txt -e '.[{extra}]'"
