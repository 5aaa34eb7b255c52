"""The speeds at which copies of recordings are added as new speakers."""

from collections.abc import Sequence
from fractions import Fraction

from voxsrc.errors import ConfigError

_SLOWEST, _FASTEST = Fraction(1, 2), Fraction(2)


def parse_speeds(text: str) -> tuple[Fraction, ...]:
    """`0.9,1.1` → (9/10, 11/10); an empty text gives none; 1 is left out, as it is there anyway.

    Raises:
        ConfigError: If a part is not a number.
    """
    try:
        speeds = [Fraction(part.strip()) for part in text.split(",") if part.strip()]
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(
            f"--speed {text!r}: expected numbers separated by commas, such as 0.9,1.1"
        ) from error
    return tuple(speed for speed in speeds if speed != 1)


def check_speeds(speeds: Sequence[Fraction]) -> None:
    """Raises ConfigError if copies cannot be made at these speeds, or one is named twice."""
    for speed in speeds:
        if not _SLOWEST <= speed <= _FASTEST or speed == 1:
            raise ConfigError(f"--speed {float(speed):g}: expected speeds from 0.5 to 2 other than 1")
        if (speed * 1000).denominator != 1:
            raise ConfigError(f"--speed {float(speed)}: expected at most three decimals")
    if len(set(speeds)) < len(speeds):
        raise ConfigError(f"--speed {', '.join(str(float(s)) for s in speeds)}: name each speed once")
