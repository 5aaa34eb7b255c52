"""Log-mel features with NumPy and SciPy, one utterance at a time, made for one core.

Frames go through the FFT in float32 blocks that stay in the L2 cache; the mel product skips the
frequency bins that a group of bands does not touch. Letters: W samples, T frames, K bins, F mels.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from voxsrc.errors import AudioError
from voxsrc.features.spec import FbankSpec

Float32Array = NDArray[np.float32]

_BLOCK_FRAMES = 256
_MEL_GROUPS = 5


@dataclass(frozen=True)
class _MelGroup:
    """The bands [first_mel, last_mel), which need only the interleaved columns [first, last) of |X|."""

    first_mel: int
    last_mel: int
    first: int
    last: int
    weights: Float32Array


class LogMelExtractor:
    """Computes the log-mel features of `spec`; holds the buffers, so one instance serves one thread.

    Example:
        >>> extract = LogMelExtractor(FbankSpec())
        >>> extract(np.zeros(16_000, np.float32)).shape
        (98, 40)
    """

    def __init__(self, spec: FbankSpec) -> None:
        self.spec = spec
        window = spec.window_values() * spec.waveform_scale
        self._window = window.astype(np.float32)
        self._pad = (spec.n_fft - spec.window_samples) // 2 if spec.centred else 0
        self._frames = np.zeros((_BLOCK_FRAMES, spec.n_fft), np.float32)
        self._groups = _group_bands(spec)
        self._per_frame = spec.remove_dc or (spec.preemphasis > 0 and spec.preemphasis_over == "frame")

    def __call__(self, waveform: Float32Array, *, dither_seed: int = 0) -> Float32Array:
        """The log-mel features of one utterance.

        Args:
            waveform: (W,) float32 in [-1, 1] at `spec.sample_rate_hz`.
            dither_seed: Seed of the dither, if the spec has any: equal seeds give equal features.

        Returns:
            (T, F) float32, natural-log mel energies.

        Raises:
            AudioError: `too_short`, if there is not one whole frame.
        """
        spec = self.spec
        num_frames = spec.num_frames(len(waveform))
        if num_frames == 0:
            raise AudioError("too_short", f"{len(waveform)} samples, one frame needs {spec.min_samples}")
        framed = self._framed(np.ascontiguousarray(self._conditioned(waveform, dither_seed)), num_frames)
        features = np.empty((num_frames, spec.num_mels), np.float32)
        inside = slice(self._pad, self._pad + spec.window_samples)
        for first in range(0, num_frames, _BLOCK_FRAMES):
            block = framed[first : first + _BLOCK_FRAMES]
            frames = self._frames[: len(block)]
            if self._per_frame:
                block = self._conditioned_frames(block)
            np.multiply(block, self._window, out=frames[:, inside])
            self._mel_energies(frames, features[first : first + len(block)])
        if spec.log_offset:
            features += np.float32(spec.log_offset)
        if spec.log_floor:
            np.maximum(features, np.float32(spec.log_floor), out=features)
        return np.log(features, out=features)

    def _conditioned(self, waveform: Float32Array, dither_seed: int) -> Float32Array:
        """Dither and pre-emphasis over the whole utterance, and the reflected edges of `centred`."""
        spec = self.spec
        if spec.dither:
            noise = np.random.Generator(np.random.Philox(key=dither_seed)).standard_normal(
                len(waveform), dtype=np.float32
            )
            waveform = waveform + noise * np.float32(spec.dither / spec.waveform_scale)
        if spec.preemphasis and spec.preemphasis_over != "frame":
            before_first = waveform[1] if spec.preemphasis_over == "utterance_reflect" else waveform[0]
            emphasised = np.empty_like(waveform)
            np.multiply(waveform[:-1], np.float32(-spec.preemphasis), out=emphasised[1:])
            emphasised[0] = -np.float32(spec.preemphasis) * before_first
            emphasised += waveform
            waveform = emphasised
        return np.pad(waveform, spec.n_fft // 2, mode="reflect") if spec.centred else waveform

    def _framed(self, waveform: Float32Array, num_frames: int) -> Float32Array:
        """The overlapping windows, (T, W), as a view."""
        step = waveform.strides[0]
        return np.lib.stride_tricks.as_strided(
            waveform[self._pad :],
            (num_frames, self.spec.window_samples),
            (self.spec.hop_samples * step, step),
            writeable=False,
        )

    def _conditioned_frames(self, block: Float32Array) -> Float32Array:
        """Kaldi's order within a frame: remove the mean, then pre-emphasise."""
        spec = self.spec
        if spec.remove_dc:
            block = np.subtract(block, block.mean(axis=1, keepdims=True), dtype=np.float32)
        if spec.preemphasis and spec.preemphasis_over == "frame":
            previous = np.concatenate([block[:, :1], block[:, :-1]], axis=1)
            block = np.subtract(block, np.float32(spec.preemphasis) * previous, dtype=np.float32)
        return block

    def _mel_energies(self, frames: Float32Array, out: Float32Array) -> None:
        """Mel energies of windowed frames (T, n_fft) into `out` (T, F)."""
        spectrum: NDArray[np.complex64] = scipy.fft.rfft(frames, axis=1)
        if self.spec.power == 1:
            magnitudes = np.abs(spectrum)
            for group in self._groups:
                columns = magnitudes[:, group.first // 2 : group.last // 2]
                np.matmul(columns, group.weights[::2], out=out[:, group.first_mel : group.last_mel])
            return
        # Real and imaginary parts stay interleaved: with each filter's row repeated, the product adds them.
        squares = spectrum.view(np.float32)
        np.multiply(squares, squares, out=squares)
        for group in self._groups:
            columns = squares[:, group.first : group.last]
            np.matmul(columns, group.weights, out=out[:, group.first_mel : group.last_mel])


def _group_bands(spec: FbankSpec) -> list[_MelGroup]:
    """Splits the bands into a few groups, each with the narrow range of bins that it needs."""
    matrix = spec.mel_matrix()
    groups = []
    for mels in np.array_split(np.arange(spec.num_mels), min(_MEL_GROUPS, spec.num_mels)):
        first_mel, last_mel = int(mels[0]), int(mels[-1]) + 1
        used = np.flatnonzero(matrix[:, first_mel:last_mel].any(axis=1))
        first_bin, last_bin = int(used[0]), int(used[-1]) + 1
        weights = np.repeat(matrix[first_bin:last_bin, first_mel:last_mel], 2, axis=0).astype(np.float32)
        groups.append(_MelGroup(first_mel, last_mel, 2 * first_bin, 2 * last_bin, weights))
    return groups
