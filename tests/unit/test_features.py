"""Log-mel features against torchaudio, Kaldi and a direct double-precision computation."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxsrc.errors import AudioError, ConfigError
from voxsrc.features import PRESETS, FbankSpec, preset
from voxsrc.features.scipy_log_mel import LogMelExtractor

torch = pytest.importorskip("torch", reason="torch is not installed (extra `train`)")

from voxsrc.features.torch_log_mel import LogMel  # noqa: E402 - needs torch

AGREEMENT_NAT = 1e-3


def speech_like(num_samples: int, seed: int = 0) -> np.ndarray:
    """A chirping harmonic tone with noise and a pause, (W,) float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(num_samples) / 16_000
    phase = 2 * np.pi * (120 * time_s + 15 * np.sin(2 * np.pi * 3 * time_s))
    tone = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 25))
    waveform = 0.2 * tone * (0.6 + 0.4 * np.sin(2 * np.pi * 2 * time_s)) + 0.01 * rng.standard_normal(
        num_samples
    )
    waveform[num_samples // 3 : num_samples // 2] *= 0.01
    return np.clip(waveform, -1, 1).astype(np.float32)


def direct_log_mel(waveform: np.ndarray, spec: FbankSpec) -> np.ndarray:
    """The specification's words as a double-precision loop over frames, by an explicit DFT."""
    x = waveform.astype(np.float64) * spec.waveform_scale
    if spec.preemphasis_over != "frame":
        first = x[1] if spec.preemphasis_over == "utterance_reflect" else x[0]
        x = x - spec.preemphasis * np.concatenate([[first], x[:-1]])
    if spec.centred:
        x = np.pad(x, spec.n_fft // 2, mode="reflect")
    pad = (spec.n_fft - spec.window_samples) // 2 if spec.centred else 0
    basis = np.exp(-2j * np.pi * np.outer(np.arange(spec.n_fft), np.arange(spec.n_fft // 2 + 1)) / spec.n_fft)
    rows = []
    for frame_index in range(spec.num_frames(len(waveform))):
        start = frame_index * spec.hop_samples + pad
        frame = x[start : start + spec.window_samples]
        if spec.remove_dc:
            frame = frame - frame.mean()
        if spec.preemphasis_over == "frame":
            frame = frame - spec.preemphasis * np.concatenate([frame[:1], frame[:-1]])
        padded = np.zeros(spec.n_fft)
        padded[pad : pad + spec.window_samples] = frame * spec.window_values()
        energies = np.abs(padded @ basis) ** spec.power @ spec.mel_matrix()
        rows.append(np.log(np.maximum(energies + spec.log_offset, spec.log_floor or 0)))
    return np.array(rows)


specs = st.builds(
    FbankSpec,
    preemphasis=st.sampled_from([0.0, 0.97]),
    preemphasis_over=st.sampled_from(["utterance", "utterance_reflect", "frame"]),
    remove_dc=st.booleans(),
    window=st.sampled_from(["hamming", "hann", "povey", "rectangular"]),
    window_periodic=st.booleans(),
    window_ms=st.sampled_from([20.0, 25.0, 32.0]),
    hop_ms=st.sampled_from([8.0, 10.0, 16.0]),
    n_fft=st.sampled_from([512, 600, 1024]),
    centred=st.booleans(),
    num_mels=st.integers(1, 48),
    mel_triangles_in=st.sampled_from(["hz", "mel"]),
    power=st.sampled_from([1, 2]),
)


@settings(max_examples=25)
@given(spec=specs, num_samples=st.integers(1024, 6000), seed=st.integers(0, 99))
def test_both_implementations_compute_what_the_spec_says(
    spec: FbankSpec, num_samples: int, seed: int
) -> None:
    waveform = speech_like(num_samples, seed)
    expected = direct_log_mel(waveform, spec)
    batch = torch.from_numpy(waveform)[None]
    np.testing.assert_allclose(LogMelExtractor(spec)(waveform), expected, atol=AGREEMENT_NAT)
    np.testing.assert_allclose(LogMel(spec)(batch)[0].T.numpy(), expected, atol=AGREEMENT_NAT)


@pytest.mark.parametrize("name", PRESETS)
def test_the_implementations_agree_on_every_preset(name: str) -> None:
    spec = preset(name)
    waveforms = np.stack([speech_like(40_000, seed) for seed in range(3)])
    one_by_one = np.stack([LogMelExtractor(spec)(waveform) for waveform in waveforms])
    batch = LogMel(spec)(torch.from_numpy(waveforms))
    np.testing.assert_allclose(batch.transpose(1, 2).numpy(), one_by_one, atol=AGREEMENT_NAT)


@pytest.mark.parametrize(("name", "num_mels"), [("voxceleb_trainer", 40), ("voxceleb_trainer_v2", 64)])
def test_the_voxceleb_trainer_presets_are_its_front_ends(name: str, num_mels: int) -> None:
    """The torchaudio transform that its models hold, with V2's pre-emphasis by a reflected convolution."""
    torchaudio = pytest.importorskip(
        "torchaudio", reason="torchaudio does not load beside this torch", exc_type=(ImportError, OSError)
    )
    waveform = torch.from_numpy(speech_like(32_240))[None]
    transform = torchaudio.transforms.MelSpectrogram(
        sample_rate=16_000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        window_fn=torch.hamming_window,
        n_mels=num_mels,
    )
    emphasised = waveform
    if name.endswith("v2"):
        reflected = torch.nn.functional.pad(waveform[:, None], (1, 0), mode="reflect")
        emphasised = torch.nn.functional.conv1d(reflected, torch.tensor([[[-0.97, 1.0]]]))[:, 0]
    expected = (transform(emphasised) + 1e-6).log()[0].T.numpy()
    ours = LogMelExtractor(preset(name))(waveform[0].numpy())
    assert ours.shape == expected.shape == (202, num_mels)
    np.testing.assert_allclose(ours, expected, atol=AGREEMENT_NAT)


@pytest.mark.parametrize("window", ["povey", "hamming", "hann", "rectangular"])
def test_kaldi80_is_kaldis_fbank(window: str) -> None:
    knf = pytest.importorskip(
        "kaldi_native_fbank", reason="kaldi-native-fbank is not installed (extra `dev`)"
    )
    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = {"hann": "hanning"}.get(window, window)
    options.mel_opts.num_bins = 80
    waveform = speech_like(24_000)
    kaldi = knf.OnlineFbank(options)
    kaldi.accept_waveform(16_000, (waveform * 32_768).tolist())
    kaldi.input_finished()
    expected = np.stack([kaldi.get_frame(i) for i in range(kaldi.num_frames_ready)])
    ours = LogMelExtractor(preset("kaldi80", window=window))(waveform)
    np.testing.assert_allclose(ours, expected, atol=AGREEMENT_NAT)


def test_frames_do_not_depend_on_their_place_in_a_block() -> None:
    spec = preset("lfb40", preemphasis=0.0)
    waveform = speech_like(16_000 * 9)
    whole = LogMelExtractor(spec)(waveform)
    for first in (1, 255, 256, 257, 700):
        alone = LogMelExtractor(spec)(waveform[first * 160 :])
        np.testing.assert_allclose(alone, whole[first:], atol=1e-5)


def test_an_extractor_forgets_the_utterance_before() -> None:
    extract = LogMelExtractor(FbankSpec())
    loud, quiet = np.ones(60_000, np.float32), speech_like(5_000)
    expected = LogMelExtractor(FbankSpec())(quiet)
    extract(loud)
    np.testing.assert_array_equal(extract(quiet), expected)


def test_lfb40_of_silence_is_the_log_offset() -> None:
    features = LogMelExtractor(FbankSpec())(np.zeros(16_000, np.float32))
    assert features.shape == (98, 40)
    np.testing.assert_allclose(features, np.log(1e-6), atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_the_number_of_frames_is_known_in_advance(name: str) -> None:
    spec = preset(name)
    extract = LogMelExtractor(spec)
    for num_samples in (spec.min_samples, spec.min_samples + 1, 559, 560, 561, 16_000, 32_240):
        if num_samples >= spec.min_samples:
            assert len(extract(speech_like(num_samples))) == spec.num_frames(num_samples)
    assert spec.num_frames(spec.min_samples - 1) == 0
    with pytest.raises(AudioError, match="too_short"):
        extract(speech_like(spec.min_samples - 1))
    with pytest.raises(AudioError, match="too_short"):
        LogMel(spec)(torch.zeros(1, spec.min_samples - 1))


def test_a_training_crop_of_voxceleb_trainer_has_200_frames() -> None:
    assert FbankSpec().num_frames(200 * 160 + 240) == 200


def test_dither_is_decided_by_its_seed() -> None:
    extract = LogMelExtractor(preset("kaldi80", dither=1.0))
    silence = np.zeros(8_000, np.float32)
    first, again, other = (extract(silence, dither_seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    # White noise of variance 1: per bin an energy of Σ window² = 150 or so, before the mel weights.
    assert 1.0 < first.mean() < 8.0


def test_equal_specs_have_equal_hashes_and_others_do_not() -> None:
    assert preset("lfb40") == FbankSpec()
    assert FbankSpec(window_ms=25).hash == FbankSpec(window_ms=25.0).hash
    hashes = {spec.hash for spec in PRESETS.values()} | {FbankSpec(num_mels=41).hash}
    assert len(hashes) == len(PRESETS) + 1
    # A model stores this hash: it may not change between versions.
    assert FbankSpec().hash == "5b0f66964f50138a"


LFB40, KALDI80 = PRESETS["lfb40"], PRESETS["kaldi80"]


@pytest.mark.parametrize(
    ("spec", "description"),
    [
        *((spec, name) for name, spec in PRESETS.items()),
        (preset("kaldi80", window="hamming"), "kaldi80 with window=hamming"),
        (preset("lfb40", num_mels=80, remove_dc=True), "lfb40 with remove_dc=true, num_mels=80"),
        (
            preset("voxceleb_trainer", num_mels=30, dither=1.0, hop_ms=12.5, n_fft=1024, power=1),
            "voxceleb_trainer with dither=1.0, hop_ms=12.5, n_fft=1024, num_mels=30, and 1 more",
        ),
    ],
)
def test_a_spec_is_described_by_the_nearest_preset(spec: FbankSpec, description: str) -> None:
    assert spec.description == description


@pytest.mark.parametrize(
    ("found", "expected", "told"),
    [
        (LFB40, LFB40, ""),
        (LFB40, preset("kaldi80", window="hamming"), "lfb40, expected kaldi80 with window=hamming"),
        # Near to each other, but of two names.
        (
            PRESETS["voxceleb_trainer"],
            PRESETS["voxceleb_trainer_v2"],
            "voxceleb_trainer, expected voxceleb_trainer_v2",
        ),
        (KALDI80, preset("kaldi80", window="hamming"), "window is povey, expected hamming"),
        (
            preset("lfb40", num_mels=64, dither=1.0, hop_ms=12.5, n_fft=1024, power=1, low_hz=0.0),
            LFB40,
            "dither is 1.0, expected 0.0; hop_ms is 12.5, expected 10.0; n_fft is 1024, expected 512; "
            "num_mels is 64, expected 40; and 2 more",
        ),
    ],
)
def test_two_specs_are_told_apart_in_a_few_words(found: FbankSpec, expected: FbankSpec, told: str) -> None:
    assert found.differences(expected) == told


def test_a_spec_survives_json() -> None:
    for spec in PRESETS.values():
        assert FbankSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"window": "kaiser"}, "window"),
        ({"n_fft": 256}, "n_fft"),
        ({"high_hz": 9_000.0}, "high_hz"),
        ({"low_hz": 7_700.0}, "low_hz"),
        ({"num_mels": 0}, "num_mels"),
        ({"num_mels": 400}, "num_mels"),
        ({"log_offset": 0.0}, "log_offset"),
        ({"power": 3}, "power"),
        ({"hop_ms": 0.0}, "hop_ms"),
        ({"dither": -1.0}, "dither"),
        ({"preemphasis": 1.5}, "preemphasis"),
        ({"mel": 40}, "mel: unknown key"),
        ({"num_mels": 40.5}, "num_mels: found 40.5"),
        ({"centred": "yes"}, "centred: found 'yes' .*, expected true or false"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        FbankSpec.from_dict({**dataclasses.asdict(FbankSpec()), **fields})


def test_an_unknown_preset_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"lfb80.*lfb40, voxceleb_trainer"):
        preset("lfb80")


def test_a_batch_must_have_two_dimensions() -> None:
    with pytest.raises(ConfigError, match="expected \\(batch, samples\\)"):
        LogMel(FbankSpec())(torch.zeros(16_000))
