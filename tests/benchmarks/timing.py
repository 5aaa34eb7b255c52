"""Paired timing: two ways of doing one thing, run in turn, so that what disturbs one disturbs the other."""

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Spent:
    """What one run took.

    Attributes:
        wall_s: Seconds by the clock.
        cpu_s: Seconds of processor time, child processes that ended included.
    """

    wall_s: float
    cpu_s: float


@dataclass
class Pairs:
    """Runs of two sides, A B A B …: `ours[i]` and `theirs[i]` came one after the other."""

    ours: list[Spent] = field(default_factory=list)
    theirs: list[Spent] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """How many times as long theirs took, for each pair."""
        return [b.wall_s / a.wall_s for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of `ratios`."""
        return statistics.median(self.ratios)

    @property
    def cpu_ratio(self) -> float:
        """The same in processor time, which other processes on the machine disturb less."""
        return statistics.median(
            b.cpu_s / a.cpu_s if a.cpu_s else 0.0 for a, b in zip(self.ours, self.theirs, strict=True)
        )

    @property
    def ours_s(self) -> float:
        """Median wall-clock seconds of our side."""
        return statistics.median(spent.wall_s for spent in self.ours)

    @property
    def theirs_s(self) -> float:
        """Median wall-clock seconds of the other side."""
        return statistics.median(spent.wall_s for spent in self.theirs)


def spend(function: Callable[[], object]) -> Spent:
    """Runs `function` once and says what it took."""
    cpu, wall = _cpu_s(), time.perf_counter()
    function()
    return Spent(time.perf_counter() - wall, _cpu_s() - cpu)


def alternate(
    ours: Callable[[int], object], theirs: Callable[[int], object], num_pairs: int, *, warm_up: bool = True
) -> Pairs:
    """Times two functions in turn.

    Args:
        ours: Called with the number of the pair, from 0; with -1 to warm up.
        theirs: The same.
        num_pairs: Pairs that count.
        warm_up: Whether each is first run once without counting.
    """
    if warm_up:
        ours(-1)
        theirs(-1)
    pairs = Pairs()
    for pair in range(num_pairs):
        pairs.ours.append(spend(lambda pair=pair: ours(pair)))  # type: ignore[misc]
        pairs.theirs.append(spend(lambda pair=pair: theirs(pair)))  # type: ignore[misc]
    return pairs


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
