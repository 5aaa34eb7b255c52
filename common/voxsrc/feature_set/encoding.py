"""Log-mel values as bytes: one global step, differences in time, zstd.

Neighbouring frames overlap by 60 %, so their difference has a narrow distribution that zstd's entropy
coder alone takes to 6.8 % of 16-bit PCM at a step of 0.2 nat; its match finder finds nothing more, which
is why its fastest level is also the smallest. Letters: T frames, F mel bands.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import zstandard
from numpy.typing import NDArray

from voxsrc.errors import ConfigError, FeatureSetError
from voxsrc.features import FbankSpec

DEFAULT_STEP_NAT = 0.2

_LEVELS = 256
_ZSTD_LEVEL = 1
# Speech spans some 20 nat between a quiet room and a loud voice.
_MIN_RANGE_NAT = 20.0
# How far below the loudest possible waveform (a full-scale square wave at the highest frequency) real
# recordings stay: a full-scale sine lies 0.7 nat below, less emphasis of 0.7 nat in mid-band.
_HEADROOM_NAT = 1.4

Uint8Array = NDArray[np.uint8]
Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Encoding:
    """The value of byte q is offset_nat + step_nat · q, in nat; the greatest error is half a step.

    Attributes:
        step_nat: Width of one level.
        offset_nat: Value of the lowest level.
    """

    step_nat: float
    offset_nat: float

    @classmethod
    def for_spec(cls, spec: FbankSpec, step_nat: float = DEFAULT_STEP_NAT) -> Self:
        """The encoding whose 256 levels hold what features of `spec` can be.

        The lowest level is digital silence if the loudest waveform then still fits, otherwise the
        highest level is about the loudest waveform.

        Raises:
            ConfigError: If the step is so small or so large that speech does not fit.
        """
        range_nat = (_LEVELS - 1) * step_nat
        if not (range_nat >= _MIN_RANGE_NAT and step_nat <= 2.0):
            raise ConfigError(
                f"step {step_nat:g} nat: expected {_MIN_RANGE_NAT / (_LEVELS - 1):.3f} to 2; "
                "0.2 and 0.1 are the measured ones"
            )
        # Parseval: the bins of one frame hold at most n_fft / 2 · Σ (x·w)², and no filter exceeds 1.
        emphasis = (1.0 + spec.preemphasis) ** 2
        energy = spec.n_fft / 2 * spec.waveform_scale**2 * emphasis * float((spec.window_values() ** 2).sum())
        loudest = math.log(energy) * spec.power / 2 - _HEADROOM_NAT
        return cls(step_nat, max(spec.lowest_value, loudest - range_nat))

    def quantise(self, features: Float32Array) -> tuple[Uint8Array, int]:
        """Bytes of features (T, F), and how many of the values lay outside the range and were limited."""
        scaled = features * np.float32(1.0 / self.step_nat)
        scaled += np.float32(0.5 - self.offset_nat / self.step_nat)
        num_limited = 0
        if scaled.min() < 0.0 or scaled.max() >= _LEVELS:
            num_limited = int(np.count_nonzero((scaled < 0.0) | (scaled >= _LEVELS)))
            np.clip(scaled, 0.0, _LEVELS - 1, out=scaled)
        return scaled.astype(np.uint8), num_limited

    def dequantise(self, levels: Uint8Array) -> Float32Array:
        """Features of bytes of any shape, float32, in nat."""
        features = levels.astype(np.float32)
        features *= np.float32(self.step_nat)
        features += np.float32(self.offset_nat)
        return features

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return {
            "dtype": "uint8",
            "step_nat": self.step_nat,
            "offset_nat": self.offset_nat,
            "transform": "time_delta",
            "compression": "zstd",
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """From the manifest.

        Raises:
            FeatureSetError: If it is an encoding that this version cannot read.
        """
        encoding = cls(float(fields["step_nat"]), float(fields["offset_nat"]))
        if not (0 < encoding.step_nat < math.inf and math.isfinite(encoding.offset_nat)):
            raise FeatureSetError(f"encoding {fields}; expected finite numbers, a step above 0")
        if encoding.to_dict() != fields:
            raise FeatureSetError(f"encoding {fields}; this version reads {encoding.to_dict()}")
        return encoding


def time_delta(levels: Uint8Array) -> Uint8Array:
    """Differences (T, F) modulo 256 to the frame before; the first frame stays."""
    deltas = levels.copy()
    deltas[1:] -= levels[:-1]
    return deltas


def undo_time_delta(deltas: Uint8Array, out: Uint8Array) -> None:
    """Sums differences (T, F) over time into `out` (T, F)."""
    np.add.accumulate(deltas, axis=0, dtype=np.uint8, out=out)


def compress(data: bytes) -> bytes:
    """One zstd frame with its content's size and checksum."""
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True, write_content_size=True)
    return compressor.compress(data)


def decompress(data: bytes, num_bytes: int) -> bytes:
    """The content of one zstd frame.

    Raises:
        FeatureSetError: If it is damaged or has not `num_bytes` bytes.
    """
    try:
        content = zstandard.ZstdDecompressor().decompress(data, max_output_size=max(num_bytes, 1))
    except zstandard.ZstdError as error:
        raise FeatureSetError(f"does not decompress ({error})") from error
    if len(content) != num_bytes:
        raise FeatureSetError(f"decompresses to {len(content)} bytes, expected {num_bytes}")
    return content
