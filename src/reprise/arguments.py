"""Arguments that cannot work are refused by name, before any work starts."""

from __future__ import annotations

from collections.abc import Mapping


def choose(argument: str, value: object, allowed: Mapping | tuple | list) -> None:
    """Raise a ValueError that names the argument, its value and what is allowed."""
    if value not in allowed:
        raise ValueError(f"{argument}: got {value!r}, allowed: {', '.join(map(repr, allowed))}")


def positive(argument: str, value: object) -> int:
    """The value, if it is an int of at least 1, else a ValueError that names the argument."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{argument}: expected an integer of at least 1, got {value!r}")
    return value


def whole(argument: str, values: object, at_least: int) -> tuple[int, ...]:
    """The values as a tuple of positive ints, at least so many, else a ValueError that names the argument."""
    try:
        result = tuple(values)  # type: ignore[call-overload]
    except TypeError:
        raise ValueError(f"{argument}: expected a sequence of integers, got {values!r}") from None
    if len(result) < at_least:
        raise ValueError(f"{argument}: expected at least {at_least} numbers, got {values!r}")
    return tuple(positive(argument, value) for value in result)
