"""How much of an epoch of groups is repeated, in words, and what would make it less."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trainer.epochs import repeated_share

# With a larger share of repetitions, what makes them fewer is advised.
_FEW = 0.1


def told_repetitions(
    counts: NDArray[np.int64],
    *,
    batch_size: int,
    group_size: int,
    max_per_speaker: int | None,
    num_processes: int,
) -> str:
    """`17.5 % of the groups are repetitions (--set batch_size=32: 8.3 %)`; empty if there are none.

    The advice is the first halving of the batch, or else of the utterances of a speaker, that makes
    repetitions few; or else the one that leaves fewest. There is none where they are few, or none helps.

    Args:
        counts: (S,) utterances of each speaker.
        batch_size: Crops in a batch of all processes together.
        group_size: Utterances of a speaker in a batch.
        max_per_speaker: Utterances of one speaker in one epoch; None is all.
        num_processes: Those that share a batch; one that is advised can be shared, too.
    """

    def share(batch_size: int = batch_size, most: int | None = max_per_speaker) -> float:
        return repeated_share(counts, batch_size // group_size, group_size, most)

    now = share()
    if now == 0.0:
        return ""
    shares = {"": now}
    if now > _FEW:
        for size in _halves(batch_size, group_size * num_processes):
            if size // group_size > 1:  # losses compare speakers
                shares[f"batch_size={size}"] = share(batch_size=size)
        for most in _halves(max_per_speaker or int(counts.max()), group_size):
            shares[f"sampler.max_utterances_per_speaker={most}"] = share(most=most)
    best = min(shares, key=lambda setting: max(shares[setting], _FEW))
    hint = f" (--set {best}: {100 * shares[best]:.1f} %)" if best else ""
    return f"{100 * now:.1f} % of the groups are repetitions{hint}"


def _halves(value: int, unit: int) -> Iterator[int]:
    """The value halved again and again, as multiples of `unit`, down to one."""
    while (value := value // 2 // unit * unit) > 0:
        yield value
