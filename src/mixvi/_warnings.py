"""Warnings of mixvi. They have their own category, so they can be filtered, and are logged too."""

import logging
import warnings

logger = logging.getLogger(__name__)


class MixviWarning(UserWarning):
    """Something that a user should know, and that is no error."""


def warn(message: str) -> None:
    """Warn of something once for each place in the code that calls this, and log it each time.

    Jobs often ignore warnings and keep a log.
    """
    warnings.warn(message, MixviWarning, stacklevel=3)
    logger.warning(message)
