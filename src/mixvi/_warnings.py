"""Warnings of mixvi. They have their own category, so they can be filtered. Where they are ignored, they are logged."""

import logging
import warnings

logger = logging.getLogger(__name__)


class MixviWarning(UserWarning):
    """Something that a user should know, and that is no error."""


def warn(message: str) -> None:
    """Warn of something once for each place in the code that calls this; log it if such warnings are ignored.

    Jobs often ignore warnings and keep a log. No message shows twice.
    """
    if _is_ignored(message):
        logger.warning(message)
    else:
        warnings.warn(message, MixviWarning, stacklevel=3)


def _is_ignored(message: str) -> bool:
    """Whether the first filter for such a warning ignores it, in any module."""
    for action, text, category, module, _ in warnings.filters:
        if issubclass(MixviWarning, category) and module is None and (text is None or text.match(message)):
            return action == "ignore"
    return False
