"""What a log-mel filterbank is: `FbankSpec`, its presets, and the window and mel matrix that follow from it.

Letters: W samples in a window, K frequency bins (n_fft / 2 + 1), F mel bands.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from voxsrc.config import from_mapping
from voxsrc.errors import ConfigError

Window = Literal["hamming", "hann", "povey", "rectangular"]
Preemphasis = Literal["utterance", "utterance_reflect", "frame"]

_CHOICES: dict[str, tuple[Any, ...]] = {
    "window": ("hamming", "hann", "povey", "rectangular"),
    "preemphasis_over": ("utterance", "utterance_reflect", "frame"),
    "mel_triangles_in": ("hz", "mel"),
    "power": (1, 2),
}
# Beyond these nothing computes with speech, and the matrix of the mel filters takes gigabytes.
_MOST: dict[str, int] = {
    "sample_rate_hz": 768_000,
    "waveform_scale": 1 << 31,
    "window_ms": 10_000,
    "hop_ms": 10_000,
    "n_fft": 1 << 15,
    "num_mels": 512,
}
# Of those that differ; further ones are counted.
_FEW_FIELDS = 4


@dataclass(frozen=True, kw_only=True)
class FbankSpec:
    """All that decides the values of a log-mel filterbank; the defaults are the `lfb40` preset.

    The steps, in order: scale the waveform, add dither, pre-emphasise, cut into frames, remove each
    frame's mean, window, FFT, |X|^power, mel filters, log(max(energy + log_offset, log_floor)).
    With `preemphasis_over="frame"` pre-emphasis follows the removal of the mean, as in Kaldi.

    Attributes:
        sample_rate_hz: Rate of the waveform.
        waveform_scale: Factor on a waveform in [-1, 1]; 32768 gives Kaldi's 16-bit range.
        dither: Standard deviation of Gaussian noise added after scaling (Kaldi and WeSpeaker: 1.0).
        preemphasis: Coefficient c of x[n] - c·x[n-1]; 0 is off.
        preemphasis_over: `utterance` takes x[-1] = x[0]; `utterance_reflect` takes x[-1] = x[1], as
            voxceleb_trainer does; `frame` treats each frame alone, with x[-1] = x[0], as Kaldi does.
        remove_dc: Whether each frame's mean is subtracted (Kaldi does).
        window: `hamming`, `hann`, `povey` (Hann to the power 0.85) or `rectangular`.
        window_periodic: Whether the window is a period of length W (torch) or symmetric (NumPy, Kaldi).
        window_ms: Length of the window in milliseconds.
        hop_ms: Step between frames in milliseconds.
        n_fft: Length of the FFT in samples, at least the window.
        centred: False: frame t begins at sample t·hop, and only whole windows count (Kaldi's
            `snip_edges`). True: frame t is centred on sample t·hop of the signal reflected at both
            ends, the window in the middle of n_fft samples (torch.stft's `center`).
        num_mels: Number F of mel bands.
        low_hz: Lower edge of the lowest band.
        high_hz: Upper edge of the highest band.
        mel_triangles_in: Whether the triangles are straight in `hz` (HTK as torchaudio has it) or in
            `mel` (Kaldi). The scale is HTK's 2595·log10(1 + f / 700) in both.
        power: 2 for energies, 1 for magnitudes.
        log_offset: Added to each energy before the logarithm.
        log_floor: Energies below it are raised to it (Kaldi: FLT_EPSILON); 0 is off.
    """

    sample_rate_hz: int = 16_000
    waveform_scale: float = 1.0
    dither: float = 0.0
    preemphasis: float = 0.97
    preemphasis_over: Preemphasis = "utterance"
    remove_dc: bool = False
    window: Window = "hamming"
    window_periodic: bool = False
    window_ms: float = 25.0
    hop_ms: float = 10.0
    n_fft: int = 512
    centred: bool = False
    num_mels: int = 40
    low_hz: float = 20.0
    high_hz: float = 7_600.0
    mel_triangles_in: Literal["hz", "mel"] = "hz"
    power: int = 2
    log_offset: float = 1e-6
    log_floor: float = 0.0

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be computed with."""
        for name, choices in _CHOICES.items():
            self._check(name, getattr(self, name) in choices, f"one of {', '.join(map(str, choices))}")
        for name in ("sample_rate_hz", "waveform_scale", "window_ms", "hop_ms", "num_mels"):
            self._check(name, getattr(self, name) > 0, "a number above 0")
        for name in ("dither", "preemphasis", "log_offset", "log_floor"):
            self._check(name, 0 <= getattr(self, name) < math.inf, "a finite number not below 0")
        for name, most in _MOST.items():
            self._check(name, getattr(self, name) <= most, f"at most {most}")
        self._check("preemphasis", self.preemphasis <= 1, "at most 1")
        self._check("hop_ms", self.hop_samples >= 1, "at least one sample")
        self._check("window_ms", self.window_samples >= 2, "at least two samples")
        self._check("n_fft", self.n_fft >= self.window_samples, f"at least the window, {self.window_samples}")
        self._check("log_offset", self.log_offset + self.log_floor > 0, "above 0 where log_floor is 0")
        nyquist_hz = self.sample_rate_hz / 2
        self._check("high_hz", self.high_hz <= nyquist_hz, f"at most half the sample rate, {nyquist_hz:g}")
        self._check("low_hz", 0 <= self.low_hz < self.high_hz, f"from 0 to high_hz, {self.high_hz:g}")
        empty = np.flatnonzero(self.mel_matrix().sum(axis=0) == 0)
        self._check(
            "num_mels",
            not len(empty),
            f"fewer bands or a longer n_fft: no frequency bin falls into {len(empty)} of the bands",
        )

    def _check(self, name: str, valid: bool, expected: str) -> None:
        if not valid:
            raise ConfigError(f"FbankSpec.{name} is {getattr(self, name)!r}; expected {expected}")

    @property
    def window_samples(self) -> int:
        """Length W of the window in samples."""
        return round(self.window_ms * self.sample_rate_hz / 1000)

    @property
    def hop_samples(self) -> int:
        """Step between frames in samples."""
        return round(self.hop_ms * self.sample_rate_hz / 1000)

    @property
    def min_samples(self) -> int:
        """Samples of the shortest waveform that has a frame."""
        return self.n_fft // 2 + 1 if self.centred else self.window_samples

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples` samples; 0 if it is too short for one."""
        if num_samples < self.min_samples:
            return 0
        if self.centred:
            return num_samples // self.hop_samples + 1
        return (num_samples - self.window_samples) // self.hop_samples + 1

    def window_values(self) -> NDArray[np.float64]:
        """The window, (W,), float64."""
        length = self.window_samples
        phase = 2 * np.pi * np.arange(length) / (length if self.window_periodic else length - 1)
        if self.window == "rectangular":
            return np.ones(length)
        if self.window == "hamming":
            return 0.54 - 0.46 * np.cos(phase)
        hann = 0.5 - 0.5 * np.cos(phase)
        # Kaldi, feat/feature-window.cc: the Povey window is a Hann window to the power 0.85.
        return hann**0.85 if self.window == "povey" else hann

    def mel_matrix(self) -> NDArray[np.float64]:
        """The triangular filters, (K, F) float64, each with a peak of 1."""
        bins_hz = np.arange(self.n_fft // 2 + 1) * (self.sample_rate_hz / self.n_fft)
        edges = np.linspace(_hz_to_mel(self.low_hz), _hz_to_mel(self.high_hz), self.num_mels + 2)
        if self.mel_triangles_in == "mel":
            positions = np.array([_hz_to_mel(f) for f in bins_hz])
        else:
            positions, edges = bins_hz, 700.0 * (10.0 ** (edges / 2595.0) - 1.0)
        rising = (positions[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - positions[:, None]) / (edges[2:] - edges[1:-1])
        matrix: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
        return matrix

    @property
    def lowest_value(self) -> float:
        """The log-mel value of digital silence, in nat: the least that the logarithm can give."""
        return math.log(max(self.log_offset, self.log_floor))

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that differ when any field differs."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values; numbers keep the field's type, so equal specs hash equal."""
        return {f.name: _as_type(getattr(self, f.name), f.type) for f in dataclasses.fields(self)}

    @property
    def description(self) -> str:
        """The nearest preset and what is not as it has it: `lfb40`, or `kaldi80 with window=hamming`."""
        name = self._nearest_preset
        preset_fields = PRESETS[name].to_dict()
        changed = {key: value for key, value in self.to_dict().items() if value != preset_fields[key]}
        told = [f"{key}={str(value).lower()}" for key, value in changed.items()]
        return f"{name} with {_first_few(told, ', ')}" if changed else name

    def differences(self, expected: "FbankSpec") -> str:
        """How it differs: `hop_ms is 12.5, expected 10.0`, or `lfb40, expected kaldi80`; empty if equal.

        Variants of one preset are told apart by their fields, otherwise the presets say more.
        """
        found, wanted = self.to_dict(), expected.to_dict()
        if found == wanted:
            return ""
        if self._nearest_preset != expected._nearest_preset:
            return f"{self.description}, expected {expected.description}"
        told = [
            f"{key} is {found[key]}, expected {wanted[key]}" for key in found if found[key] != wanted[key]
        ]
        return _first_few(told, "; ")

    @property
    def _nearest_preset(self) -> str:
        fields = self.to_dict().items()
        return max(PRESETS, key=lambda name: len(fields & PRESETS[name].to_dict().items()))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], path: str = "") -> Self:
        """The spec with these fields, the others at their defaults.

        Args:
            fields: Fields by name.
            path: Where they stand in a larger configuration, for errors.

        Raises:
            ConfigError: On an unknown field (the nearest known one is suggested) or a value that cannot be
                used.
        """
        return from_mapping(cls, fields, path)


def _first_few(told: Sequence[str], separator: str) -> str:
    """All of a few, or the first and how many more there are."""
    more = len(told) - _FEW_FIELDS
    return separator.join([*told[:_FEW_FIELDS], *([f"and {more} more"] if more > 0 else [])])


def _as_type(value: Any, annotation: Any) -> Any:
    return float(value) if annotation is float else value


def _hz_to_mel(frequency_hz: float) -> float:
    return 2595.0 * math.log10(1.0 + frequency_hz / 700.0)


PRESETS: dict[str, FbankSpec] = {
    "lfb40": FbankSpec(),
    # models/ResNetSE34L.py of clovaai/voxceleb_trainer; its instance norm is applied at load time.
    "voxceleb_trainer": FbankSpec(
        preemphasis=0.0, window_periodic=True, centred=True, low_hz=0.0, high_hz=8_000.0
    ),
    # models/ResNetSE34V2.py of the same.
    "voxceleb_trainer_v2": FbankSpec(
        preemphasis_over="utterance_reflect",
        window_periodic=True,
        centred=True,
        num_mels=64,
        low_hz=0.0,
        high_hz=8_000.0,
    ),
    # Kaldi's compute-fbank-feats with 80 bands and no dither; FLT_EPSILON is its energy floor.
    "kaldi80": FbankSpec(
        waveform_scale=32_768.0,
        preemphasis_over="frame",
        remove_dc=True,
        window="povey",
        num_mels=80,
        high_hz=8_000.0,
        mel_triangles_in="mel",
        log_offset=0.0,
        log_floor=float(np.finfo(np.float32).eps),
    ),
}


def preset(name: str, **overrides: Any) -> FbankSpec:
    """The preset of this name, with some fields replaced.

    Raises:
        ConfigError: On an unknown name or field.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no feature preset {name!r}; the presets are {', '.join(PRESETS)}")
    return FbankSpec.from_dict({**PRESETS[name].to_dict(), **overrides})
