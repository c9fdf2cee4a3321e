"""Warnings of mixvi. They have their own category, so they can be filtered."""

import warnings


class MixviWarning(UserWarning):
    """Something that a user should know, and that is no error."""


def warn(message: str) -> None:
    """Warn of something once for each place in the code that calls this."""
    warnings.warn(message, MixviWarning, stacklevel=3)
