"""Sounds added and reverberated in the power domain, by hand and against a plain convolution."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import effects
from voxsrc.features import PRESETS, FbankSpec


def test_voices_of_different_loudness_count_alike() -> None:
    speech = torch.ones(1, 10, 4)
    voices = torch.stack([torch.full((10, 4), 5.0), torch.full((10, 4), 1e-3), torch.full((10, 4), 7.0)])[
        None
    ]
    voices[0, 0, :5] *= 3
    mixed = effects.add_at_snr(speech, voices, torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([0.0]))
    # Two voices of mean energy 1/2 each: 3 : 1 in the halves of the first, constant in the second.
    torch.testing.assert_close(mixed[0, 0], torch.full((4,), 1 + 0.75 + 0.5))
    torch.testing.assert_close(mixed[0, 9], torch.full((4,), 1 + 0.25 + 0.5))


def test_silence_stays_and_adds_nothing() -> None:
    loud, silent = torch.ones(1, 5, 3), torch.zeros(1, 5, 3)
    one, snr_db = torch.ones(1, 1), torch.zeros(1)
    assert torch.equal(effects.add_at_snr(loud, silent[:, None], one, snr_db), loud)
    assert torch.equal(effects.add_at_snr(silent, loud[:, None], one, snr_db), silent)


@pytest.mark.parametrize("name", [*PRESETS, "magnitudes"])
def test_energies_go_back_to_the_same_features(name: str) -> None:
    spec = FbankSpec(power=1) if name == "magnitudes" else PRESETS[name]
    features = torch.linspace(spec.lowest_value, spec.lowest_value + 20, 200)
    energies = effects.to_energies(features.clone(), spec)
    assert (energies >= 0).all()
    # Near the offset a float32 energy is the small difference of two numbers, but its logarithm is not.
    torch.testing.assert_close(effects.to_log(energies, spec), features, rtol=0, atol=2e-3)
    below = torch.full((3,), spec.lowest_value - 1)
    torch.testing.assert_close(
        effects.to_log(torch.zeros(3), spec), torch.full((3,), spec.lowest_value), rtol=0, atol=1e-5
    )
    assert effects.to_energies(below, spec).min() >= 0


def test_energies_of_magnitudes_are_squares() -> None:
    spec = FbankSpec(power=1, log_offset=0.5)
    torch.testing.assert_close(
        effects.to_energies(torch.tensor([3.5]).log(), spec), torch.tensor([9.0]), rtol=1e-5, atol=0
    )


@settings(max_examples=30)
@given(
    num_frames=st.integers(1, 70),
    rt60_s=st.tuples(st.floats(0.1, 1.0), st.floats(0.1, 1.0)),
    ratio_db=st.floats(-6, 12),
)
def test_reverberation_is_the_convolution_with_an_exponential_tail(
    num_frames: int, rt60_s: tuple[float, float], ratio_db: float
) -> None:
    energies = np.random.default_rng(num_frames).random((1, num_frames, 2)) ** 4
    decay = 10.0 ** (-6 * 0.01 / np.array(rt60_s))
    # A long past at each band's mean energy, then the crop.
    past = np.repeat(energies.mean(axis=1, keepdims=True), 3000, axis=1)
    signal = np.concatenate([past, energies], axis=1)[0]
    tail = decay ** np.arange(1, 3001)[:, None]
    tail *= 10 ** (-ratio_db / 10) / tail.sum(axis=0)
    response = np.concatenate([np.ones((1, 2)), tail]) / (1 + 10 ** (-ratio_db / 10))
    expected = np.stack(
        [np.convolve(signal[:, f], response[:, f])[3000:][:num_frames] for f in (0, 1)], axis=1
    )
    decays = effects.decay_per_frame(torch.tensor([rt60_s], dtype=torch.float64), 0.01)
    np.testing.assert_allclose(decays[0], decay)
    made = effects.reverberate(
        torch.from_numpy(energies), decays, torch.tensor([ratio_db], dtype=torch.float64)
    )
    np.testing.assert_allclose(made[0].numpy(), expected, rtol=1e-6)


def test_reverberation_falls_by_60_db_in_rt60() -> None:
    energies = torch.zeros(1, 100, 1, dtype=torch.float64)
    energies[0, 0] = 1.0
    steady = energies.mean()
    decay = effects.decay_per_frame(torch.tensor([[0.5]], dtype=torch.float64), 0.01)
    made = effects.reverberate(energies, decay, torch.zeros(1, dtype=torch.float64))[0, :, 0]
    past = effects.reverberate(torch.full_like(energies, 0) + steady, decay, torch.zeros(1).double())
    assert past.max() == pytest.approx(past.min().item())
    assert 10 * torch.log10(made[1] / made[51]).item() == pytest.approx(60, abs=1e-6)
