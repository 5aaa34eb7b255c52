"""What augmentation does to crops, as functions of tensors on any device.

Sounds add in power, so noise and reverberation work on mel energies: exp(log-mel) less the spec's
offset. That the sum of two uncorrelated signals has the sum of their energies holds on average; within
one filter of one frame the cross term is left out. Letters: B samples, V voices, T frames, F mel bands.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from voxsrc.features import FbankSpec


def to_energies(features: Tensor, spec: FbankSpec) -> Tensor:
    """Mel energies of log-mel features of any shape, not negative; a spec of magnitudes is squared."""
    energies = features.exp().sub_(spec.log_offset).clamp_min_(0.0)
    return energies if spec.power == 2 else energies.square_()


def to_log(energies: Tensor, spec: FbankSpec) -> Tensor:
    """Log-mel features, in nat, of mel energies of any shape: the spec's offset and floor hold again."""
    magnitudes = energies if spec.power == 2 else energies.sqrt()
    return (magnitudes + spec.log_offset).clamp_min_(spec.log_floor).log_()


def add_at_snr(energies_BTF: Tensor, voices_BVTF: Tensor, weights_BV: Tensor, snr_db_B: Tensor) -> Tensor:
    """Adds a mix of noises at a signal-to-noise ratio.

    The voices are brought to equal mean energy, weighted and summed; the sum is scaled until the ratio of
    the mean energies over the crop, after pre-emphasis as the features are, is the one asked for. A
    silent crop and a silent noise leave everything as it is.

    Args:
        energies_BTF: Mel energies of the speech.
        voices_BVTF: Mel energies of the noises.
        weights_BV: Their relative energies; 0 leaves one out.
        snr_db_B: The ratios in dB.

    Returns:
        (B, T, F) mel energies.
    """
    levels_BV = voices_BVTF.mean(dim=(2, 3))
    weights_BV = torch.where(levels_BV > 0, weights_BV / levels_BV, 0.0)
    mix_BTF = (voices_BVTF * weights_BV[:, :, None, None]).sum(dim=1)
    mix_level_B = mix_BTF.mean(dim=(1, 2))
    wanted_B = energies_BTF.mean(dim=(1, 2)) * 10.0 ** (-snr_db_B / 10.0)
    scale_B = torch.where(mix_level_B > 0, wanted_B / mix_level_B, 0.0)
    return energies_BTF + mix_BTF * scale_B[:, None, None]


def reverberate(energies_BTF: Tensor, decay_BF: Tensor, direct_to_reverberant_db_B: Tensor) -> Tensor:
    """Adds a late reverberation that decays exponentially, band by band.

    Polack's model ("La transmission de l'énergie sonore dans les salles", 1988; Lebart, Boucher and
    Denbigh, Acta Acustica 87, 2001) takes the room's impulse response as white noise under an exponential
    envelope: 60 dB in RT60. The expected energy of the reverberation in frame t is then the past energies
    smoothed by that envelope, c·Σ_{k≥1} a^k·E[t-k], a = 10^(-6·hop / RT60). c makes the whole tail's energy
    fit the direct-to-reverberant ratio, and the sum is scaled to keep the mean energy of a long signal.

    Approximations: reflections within one frame count as direct sound (their colouration is left out), all
    bands have one ratio, and before the crop its bands are taken to have had their mean energies.

    Args:
        energies_BTF: Mel energies.
        decay_BF: The factors a by which energy falls from frame to frame, in (0, 1).
        direct_to_reverberant_db_B: Energy of the direct sound against the whole tail, in dB.

    Returns:
        (B, T, F) mel energies.
    """
    decay_B1F = decay_BF[:, None, :]
    num_frames = energies_BTF.shape[1]
    # Σ_{k≥0} a^k·E[t-k] by doubling: after i rounds it holds the first 2^i terms.
    sums_BTF, shift = energies_BTF, 1
    while shift < num_frames:
        sums_BTF = sums_BTF + F.pad(sums_BTF[:, :-shift] * decay_B1F**shift, (0, 0, shift, 0))
        shift *= 2
    steady_B1F = energies_BTF.mean(dim=1, keepdim=True) / (1.0 - decay_B1F)
    frames_T1 = torch.arange(1, num_frames + 1, device=energies_BTF.device)[:, None]
    before_BTF = steady_B1F * torch.exp(frames_T1 * decay_B1F.log())
    tail_BTF = F.pad(decay_B1F * sums_BTF[:, :-1], (0, 0, 1, 0)) + before_BTF
    ratio_B11 = 10.0 ** (-direct_to_reverberant_db_B / 10.0)[:, None, None]
    share_B1F = ratio_B11 * (1.0 - decay_B1F) / decay_B1F
    return (energies_BTF + share_B1F * tail_BTF) / (1.0 + ratio_B11)


def decay_per_frame(rt60_s: Tensor, hop_s: float) -> Tensor:
    """The factor by which energy falls from frame to frame where it falls by 60 dB in `rt60_s`."""
    return torch.exp(-6.0 * math.log(10.0) * hop_s / rt60_s)


def mask(features_BTF: Tensor, times_B2M: Tensor, bands_B2M: Tensor) -> Tensor:
    """SpecAugment's masks (Park et al., 2019) without the warp; a masked value becomes its band's mean.

    After normalisation by the mean, masked values are then zero.

    Args:
        features_BTF: Log-mel features.
        times_B2M: Begin and end (exclusive) of M spans of frames.
        bands_B2M: Begin and end (exclusive) of any number of spans of bands.

    Returns:
        (B, T, F) log-mel features.
    """
    _, num_frames, num_mels = features_BTF.shape
    hidden_BTF = _in_spans(times_B2M, num_frames)[:, :, None] | _in_spans(bands_B2M, num_mels)[:, None, :]
    return torch.where(hidden_BTF, features_BTF.mean(dim=1, keepdim=True), features_BTF)


def _in_spans(spans_B2M: Tensor, length: int) -> Tensor:
    """(B, length) whether a place is in one of the spans."""
    places_L1 = torch.arange(length, device=spans_B2M.device)[:, None]
    begins_B1M, ends_B1M = spans_B2M[:, :1], spans_B2M[:, 1:]
    return ((places_L1 >= begins_B1M) & (places_L1 < ends_B1M)).any(dim=2)
