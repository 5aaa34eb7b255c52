"""What every row of the training benchmark is given: the material, the peer, and how much to measure."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from machine import Machine
from training_material import Corpus


@dataclass(frozen=True)
class TrainingEffort:
    """How much is measured.

    Attributes:
        model: The network of the rows that name ResNetSE34L.
        batch_size: Crops of a batch.
        crop_frames: Frames of a crop.
        hours: Duration of the feature set that is made, by repetition.
        crop_rounds: Turns of each side that count, in the rows of loading.
        our_batches: Batches of one such turn of ours.
        peer_batches: Batches of one of the peer's.
        step_rounds: Turns of each side that count, in the rows of steps; one step each.
        load_steps: Steps on which augmented loading is measured.
        saves: Saves that are measured.
        gpu_steps: Steps of one turn on a GPU.
        gpu_rounds: Such turns.
        synthetic_gb: Random features on the GPU, 10⁹ bytes.
        compiles: Whether rows with `torch.compile` are measured on the CPU.
    """

    model: str = "ResNetSE34L"
    batch_size: int = 64
    crop_frames: int = 200
    hours: float = 5.0
    crop_rounds: int = 9
    our_batches: int = 500
    peer_batches: int = 8
    step_rounds: int = 20
    load_steps: int = 12
    saves: int = 10
    gpu_steps: int = 50
    gpu_rounds: int = 5
    synthetic_gb: float = 2.0
    compiles: bool = True


QUICK = TrainingEffort(
    model="ResNet_mini",
    batch_size=8,
    crop_frames=64,
    hours=0.02,
    crop_rounds=1,
    our_batches=2,
    peer_batches=1,
    step_rounds=1,
    load_steps=1,
    saves=2,
    gpu_steps=2,
    gpu_rounds=1,
    synthetic_gb=0.002,
    compiles=False,
)


@dataclass(frozen=True)
class TrainingBench:
    """What every row is given.

    Attributes:
        machine: Where it runs.
        make_corpus: Makes what is trained on, when a row first needs it.
        checkout: voxceleb_trainer; None if it was not given.
        scratch: An empty folder, deleted at the end.
        effort: How much to do.
    """

    machine: Machine
    make_corpus: Callable[[], Corpus]
    checkout: Path | None
    scratch: Path
    effort: TrainingEffort

    @cached_property
    def corpus(self) -> Corpus:
        """What is trained on."""
        return self.make_corpus()

    @property
    def has_peer(self) -> bool:
        """Whether the peer can be measured on the same utterances."""
        return self.checkout is not None and self.corpus.wavs is not None

    def log(self, name: str) -> Path:
        """A file for what a process prints."""
        return self.scratch / f"{name}.log"
