"""What is said where a format needs a library that the base install does not bring."""

from __future__ import annotations

from iftplan.base.errors import InputError


def missing(what: str, package: str) -> InputError:
    """The error that names the extra to install."""
    return InputError(
        f"{what} needs {package}, which is not installed; install it with: pip install 'iftplan[report]'."
    )
