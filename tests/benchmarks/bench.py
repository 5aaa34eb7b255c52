"""What every row is given: the audio, a scratch folder, and how much work to do."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from machine import Machine
from material import Audio, Float32Array


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        minutes: Audio that the single-core rows are measured on.
        num_pairs: Pairs of runs of a slow comparison (seconds each).
        num_fast_pairs: Pairs of runs of a fast one.
        joined_s: Least duration of the files joined to VoxCeleb's form.
        wav_hours: Audio that the wav rows are measured on, by repetition.
        tar_utterances: Utterances of the tar that the memory is measured on.
        scaling_hours: Audio that one and two workers are compared on.
        crop_batches: Batches of 512 crops in one run.
    """

    minutes: float = 20.0
    num_pairs: int = 3
    num_fast_pairs: int = 7
    joined_s: float = 8.0
    wav_hours: float = 1.0
    tar_utterances: int = 10_000
    scaling_hours: float = 4.0
    crop_batches: int = 100


QUICK = Effort(
    minutes=0.5,
    num_pairs=1,
    num_fast_pairs=1,
    joined_s=3.0,
    wav_hours=0.02,
    tar_utterances=60,
    scaling_hours=0.02,
    crop_batches=2,
)


@dataclass
class Bench:
    """The material of one benchmark.

    Attributes:
        machine: Where it runs.
        audio: Real utterances, as files in a folder.
        waveforms: The same, decoded.
        scratch: An empty folder, deleted at the end.
        effort: How much to do.
    """

    machine: Machine
    audio: Audio
    waveforms: list[Float32Array]
    scratch: Path
    effort: Effort
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def fresh_folder(self, name: str) -> Path:
        """A folder in `scratch` that does not exist yet."""
        return self.scratch / f"{name}-{next(self._numbers)}"
