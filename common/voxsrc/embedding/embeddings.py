"""Embeddings of utterances, what of an utterance is embedded, and the error about those that cannot be.

Letters: U utterances, K crops of an utterance, D embedding, T frames, F mel bands.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from voxsrc.errors import ConfigError, VoxsrcError

Float32Array = NDArray[np.float32]
Int64Array = NDArray[np.int64]

# Of an utterance embedded whole: 200 s at 10 ms, and VoxCeleb's longest has 145 s. The network's memory grows
# with the frames that it sees at once, by 4 to 20 GiB an hour.
MAX_FRAMES = 20_000

# The code of the reason.
TOO_LONG = "too_long"

_NAMED = 10


class EmbeddingError(VoxsrcError):
    """Utterances that have no embedding.

    Attributes:
        reasons: Why, by utterance id; begins with a short code, as in `too_short: 7 frames`.
    """

    def __init__(self, what: str, reasons: Mapping[str, str], remedy: str) -> None:
        super().__init__(what, reasons, remedy)
        self.what = what
        self.reasons = dict(reasons)
        self.remedy = remedy

    @property
    def codes(self) -> Counter[str]:
        """How many have each kind of reason, by its code."""
        return Counter(reason.partition(":")[0] for reason in self.reasons.values())

    def __str__(self) -> str:
        summary = ", ".join(f"{count:,} {code}" for code, count in sorted(self.codes.items()))
        named = "\n".join(f"{name} ({reason})" for name, reason in list(self.reasons.items())[:_NAMED])
        more = len(self.reasons) - _NAMED
        rest = f"\n… and {more:,} more" if more > 0 else ""
        return f"{self.what} ({summary}); {self.remedy}:\n{named}{rest}"


def check_unique(utterance_ids: Iterable[str]) -> None:
    """Raises EmbeddingError, naming all, if utterances are asked for more than once."""
    repeated = {
        name: f"repeated: asked for {count} times"
        for name, count in Counter(utterance_ids).items()
        if count > 1
    }
    if repeated:
        raise EmbeddingError(f"{len(repeated)} utterances are repeated", repeated, "ask for each once")


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The embeddings of some utterances.

    Attributes:
        utterance_ids: U ids.
        vectors: (U, D) or (U, K, D) float32, not length-normalised.
        num_frames: (U,) int64, frames of each whole utterance.
    """

    utterance_ids: list[str]
    vectors: Float32Array
    num_frames: Int64Array

    def __len__(self) -> int:
        return len(self.utterance_ids)


@dataclass(frozen=True, kw_only=True)
class EmbeddingMode:
    """What of an utterance is embedded.

    Attributes:
        name: `utterance`, the whole; or `crops`, as voxceleb_trainer evaluates: crops whose starts are
            evenly spaced from the first to the last possible one, a shorter utterance looped.
        num_crops: K.
        crop_frames: T of each crop.
    """

    name: Literal["utterance", "crops"] = "utterance"
    num_crops: int = 10
    crop_frames: int = 400

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        if self.name not in ("utterance", "crops"):
            raise ConfigError(f"name is {self.name!r}; expected utterance or crops")
        for field in ("num_crops", "crop_frames"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} is {getattr(self, field)}; expected at least 1")

    @property
    def tag(self) -> str:
        """A name that differs between modes that give other embeddings."""
        return "utterance" if self.name == "utterance" else f"crops-{self.num_crops}x{self.crop_frames}"

    def row_shape(self, embedding_dim: int) -> tuple[int, ...]:
        """Shape of one utterance's embeddings: (D,) or (K, D)."""
        return (embedding_dim,) if self.name == "utterance" else (self.num_crops, embedding_dim)

    def least_frames(self, encoder_min_frames: int) -> int:
        """Frames that an utterance needs."""
        return encoder_min_frames if self.name == "utterance" else 1

    def length_problem(self, num_frames: int, encoder_min_frames: int, max_frames: int) -> str:
        """Why an utterance cannot be embedded: `too_short: …` or `too_long: …`; empty if it can.

        Args:
            num_frames: Of the utterance.
            encoder_min_frames: Least that the network needs.
            max_frames: Most that it is given at once; crops may be of any length.
        """
        least = self.least_frames(encoder_min_frames)
        if num_frames < least:
            return f"too_short: {num_frames} frames, the model needs {least}"
        if self.name == "utterance" and num_frames > max_frames:
            return (
                f"{TOO_LONG}: {num_frames} frames, at most {max_frames} are embedded as a whole; cut the "
                "recording"
            )
        return ""

    def batches(self, num_frames: Int64Array, batch_frames: int) -> list[Int64Array]:
        """Divides utterances into batches of which each is one tensor without padding.

        Args:
            num_frames: (U,) frames of each.
            batch_frames: Most frames of a batch, unless one utterance has more.

        Returns:
            Places in `num_frames`: of whole utterances by length, of crops in the order given.
        """
        if self.name == "crops":
            size = max(1, batch_frames // (self.num_crops * self.crop_frames))
            return [
                np.arange(len(num_frames))[first : first + size] for first in range(0, len(num_frames), size)
            ]
        order = np.argsort(num_frames, kind="stable")
        changes = np.flatnonzero(np.diff(num_frames[order])) + 1
        parts = []
        for places in np.split(order, changes):
            size = max(1, batch_frames // max(1, int(num_frames[places[0]]))) if len(places) else 1
            parts += [places[first : first + size] for first in range(0, len(places), size)]
        return parts

    def inputs(self, features: Sequence[Float32Array]) -> Float32Array:
        """What the network is given for a batch of utterances (T, F): (B, T, F) or (B · K, T, F)."""
        if self.name == "utterance":
            return features[0][None] if len(features) == 1 else np.stack(features)
        return np.concatenate([utterance[self._crop_frames_of(len(utterance))] for utterance in features])

    def _crop_frames_of(self, num_frames: int) -> Int64Array:
        """(K, T) frames of the crops of one utterance."""
        # DatasetLoader.loadWAV of voxceleb_trainer: linspace over the possible starts, rounded down.
        starts = np.linspace(0, max(num_frames - self.crop_frames, 0), self.num_crops).astype(np.int64)
        frames: Int64Array = (starts[:, None] + np.arange(self.crop_frames)) % num_frames
        return frames


WHOLE_UTTERANCES = EmbeddingMode()
CROPS = EmbeddingMode(name="crops")
