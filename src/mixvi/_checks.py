"""Checks of numbers that a user passes: a message says what came and what is allowed."""

import math
from numbers import Integral, Real
from typing import Any


def check_whole(name: str, value: Any, least: int = 1, most: int | None = None, none: str = "") -> None:
    """Check that a value is a whole number in a range.

    Parameters
    ----------
    name
        Name of the argument, for the message.
    value
        What the user passed. ``True`` and ``False`` are not numbers here.
    least, most
        Smallest and largest value that is allowed; ``None`` is no limit.
    none
        What ``None`` stands for, if it is allowed.

    Raises
    ------
    ValueError
        If it is none.
    """
    if value is None and none:
        return
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"between {least} and {most}"
        raise ValueError(
            f"{name}={value!r}; it must be a whole number {limits}{f', or None for {none}' if none else ''}."
        )


def check_flag(name: str, value: Any) -> None:
    """Check that a value is ``True`` or ``False``.

    Parameters
    ----------
    name
        Name of the argument, for the message.
    value
        What the user passed.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}; it must be True or False.")


def check_number(
    name: str, value: Any, least: float = -math.inf, above: float = -math.inf, below: float = math.inf, none: str = ""
) -> None:
    """Check that a value is a finite number in a range.

    Parameters
    ----------
    name
        Name of the argument, for the message.
    value
        What the user passed. ``True`` and ``False`` are not numbers here.
    least
        Smallest value that is allowed.
    above, below
        Limits that are not allowed themselves.
    none
        What ``None`` stands for, if it is allowed.

    Raises
    ------
    ValueError
        If it is none.
    """
    if value is None and none:
        return
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not (is_number and least <= value and above < value < below):
        limits = [(least, "of at least"), (above, "above"), (below, "below")]
        said = " and ".join(f"{word} {limit:g}" for limit, word in limits if math.isfinite(limit))
        raise ValueError(
            f"{name}={value!r}; it must be a finite number {said}{f', or None for {none}' if none else ''}."
        )
