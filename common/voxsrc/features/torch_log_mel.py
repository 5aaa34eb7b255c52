"""Log-mel features as a torch module: the front-end of the ONNX models that take audio.

Agrees with `scipy_log_mel` within 1e-3 nat. Letters: B batch, W samples, T frames, K bins, F mels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxsrc.errors import AudioError, ConfigError
from voxsrc.features.spec import FbankSpec


class LogMel(nn.Module):
    """Computes the log-mel features of `spec` for a batch of waveforms of one length.

    All that happens to a frame before |X|^power is linear, so it is one strided convolution with a fixed
    kernel: no Fourier transform and no complex numbers, which few ONNX runtimes have.

    Args:
        spec: What to compute. Dither is for extraction alone: a spec with dither is computed without.
    """

    frame_operator: Tensor
    mel_matrix: Tensor

    def __init__(self, spec: FbankSpec) -> None:
        super().__init__()
        self.spec = spec
        operator = _fourier_matrix(spec) @ _frame_operator(spec)
        self.register_buffer("frame_operator", operator.float(), persistent=False)
        self.register_buffer("mel_matrix", torch.from_numpy(spec.mel_matrix()).float(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """The log-mel features of a batch.

        Args:
            waveform: (B, W) float32 in [-1, 1] at `spec.sample_rate_hz`.

        Returns:
            (B, F, T) float32, natural-log mel energies.

        Raises:
            ConfigError: If `waveform` has not two dimensions.
            AudioError: `too_short`, if W is less than one frame.
        """
        if waveform.dim() != 2:
            raise ConfigError(f"waveform has the shape {tuple(waveform.shape)}; expected (batch, samples)")
        if not torch.compiler.is_exporting() and waveform.shape[1] < self.spec.min_samples:
            raise AudioError(
                "too_short", f"{waveform.shape[1]} samples, one frame needs {self.spec.min_samples}"
            )
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum_BKT = self._power_spectrum(self._conditioned(waveform.float()))
            energies_BFT = self.mel_matrix.T @ spectrum_BKT
            energies_BFT = energies_BFT + self.spec.log_offset
            if self.spec.log_floor:
                energies_BFT = energies_BFT.clamp_min(self.spec.log_floor)
            return torch.log(energies_BFT)

    def _conditioned(self, waveform_BW: Tensor) -> Tensor:
        """Pre-emphasis over the whole utterance and the reflected edges of `centred`."""
        spec = self.spec
        if spec.preemphasis and spec.preemphasis_over != "frame":
            first = 1 if spec.preemphasis_over == "utterance_reflect" else 0
            previous = torch.cat([waveform_BW[:, first : first + 1], waveform_BW[:, :-1]], dim=1)
            waveform_BW = waveform_BW - spec.preemphasis * previous
        if spec.centred:
            # The window sits in the middle of n_fft samples; without its zeros less padding is needed.
            pad = spec.n_fft // 2 - (spec.n_fft - spec.window_samples) // 2
            waveform_BW = F.pad(waveform_BW[:, None], (pad, pad), mode="reflect")[:, 0]
        return waveform_BW

    def _power_spectrum(self, waveform_BW: Tensor) -> Tensor:
        """|X|^power of every frame, (B, K, T)."""
        parts = F.conv1d(waveform_BW[:, None], self.frame_operator[:, None], stride=self.spec.hop_samples)
        real, imaginary = parts.chunk(2, dim=1)
        energies = real.square() + imaginary.square()
        return energies if self.spec.power == 2 else energies.sqrt()


def _frame_operator(spec: FbankSpec) -> Tensor:
    """What a frame undergoes before the FFT, as one matrix (W, W) float64: mean, pre-emphasis, window."""
    length = spec.window_samples
    operator = torch.eye(length, dtype=torch.float64)
    if spec.remove_dc:
        operator = operator - 1.0 / length
    if spec.preemphasis and spec.preemphasis_over == "frame":
        previous = torch.cat([operator[:1], operator[:-1]])
        operator = operator - spec.preemphasis * previous
    window = torch.from_numpy(spec.window_values()) * spec.waveform_scale
    return window[:, None] * operator


def _fourier_matrix(spec: FbankSpec) -> Tensor:
    """Real and imaginary parts of the DFT of a zero-padded frame, (2K, W) float64."""
    bins = torch.arange(spec.n_fft // 2 + 1, dtype=torch.float64)
    samples = torch.arange(spec.window_samples, dtype=torch.float64)
    angles = 2 * torch.pi / spec.n_fft * torch.outer(bins, samples)
    return torch.cat([angles.cos(), -angles.sin()])
