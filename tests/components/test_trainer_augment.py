"""Augmentation does what its parameters say, and draws them by (seed, step) alone."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from feature_sets import make_feature_set
from trainer import effects
from trainer.augment import Augmenter, Draw
from trainer.augment_config import (
    AugmentConfig,
    BabbleConfig,
    GainConfig,
    GaussianConfig,
    MusicConfig,
    NoiseConfig,
    ReverberationConfig,
    SpecAugmentConfig,
)
from trainer.batches import BatchLoader
from trainer.data import DeviceFeatures
from trainer.noise import Babble
from trainer.placement import DataConfig
from trainer.sampler import BatchPlan, Sampler, SamplerConfig
from trainer.utterances import TrainingUtterances
from voxsrc.config import from_mapping
from voxsrc.errors import ConfigError, FeatureSetError
from voxsrc.features import PRESETS, FbankSpec

BATCH_SIZE = 12
CROP_FRAMES = 64


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """URIs: speech, noise (some shorter than a crop), and noise with another spec."""
    folder = tmp_path_factory.mktemp("sets")
    make_feature_set(folder / "speech", [[90, 200, 150, 64], [120, 100, 80]])
    make_feature_set(folder / "noise", [[10, 64, 300, 40]], step_nat=0.1)
    make_feature_set(folder / "other", [[100]], spec=FbankSpec(hop_ms=12.5))
    return {name: str(folder / name) for name in ("speech", "noise", "other")}


@pytest.fixture(scope="module")
def speech(sets: dict[str, str]) -> DeviceFeatures:
    return DeviceFeatures.open(sets["speech"])


@pytest.fixture(scope="module")
def sampler(speech: DeviceFeatures) -> Sampler:
    config = SamplerConfig(crop_frames=CROP_FRAMES)
    return Sampler(TrainingUtterances.of(speech.index), config, batch_size=BATCH_SIZE, seed=0)


def all_on(sets: dict[str, str], **fields: Any) -> AugmentConfig:
    """Every kind on half of the samples, or whatever `fields` say."""
    kinds: dict[str, Any] = {
        "reverberation": ReverberationConfig(probability=0.5),
        "noise": NoiseConfig(probability=0.5, features=sets["noise"]),
        "music": MusicConfig(probability=0.5, features=sets["noise"]),
        "babble": BabbleConfig(probability=0.5),
        "gain": GainConfig(probability=0.5),
        "gaussian": GaussianConfig(probability=0.5),
        "spec_augment": SpecAugmentConfig(probability=0.5, num_time_masks=2),
    }
    return AugmentConfig(**{"combine": "several", **kinds, **fields})


def augmenter_for(config: AugmentConfig, speech: DeviceFeatures, seed: int = 5) -> Augmenter:
    return Augmenter.open(config, speech, TrainingUtterances.of(speech.index), seed=seed)


@pytest.fixture(scope="module")
def full(sets: dict[str, str], speech: DeviceFeatures) -> Augmenter:
    return augmenter_for(all_on(sets), speech)


def only(kind: str, config: Any) -> AugmentConfig:
    return AugmentConfig(**{kind: config})


def assert_equal_draws(first: dict[str, Draw], second: dict[str, Draw]) -> None:
    assert list(first) == list(second)
    for kind in first:
        np.testing.assert_array_equal(first[kind].samples, second[kind].samples)
        for name, values in first[kind].parameters.items():
            np.testing.assert_array_equal(values, second[kind].parameters[name])
        np.testing.assert_array_equal(first[kind].crops or (), second[kind].crops or ())


def test_all_is_off_by_default(speech: DeviceFeatures, sampler: Sampler) -> None:
    assert not AugmentConfig().is_on
    plan = sampler.batch(0)
    augmenter = augmenter_for(AugmentConfig(), speech)
    assert augmenter.draw(plan) == {}
    assert torch.equal(augmenter(speech.crops(plan), plan), speech.crops(plan))


def test_draws_depend_on_seed_and_step_alone(
    full: Augmenter, sets: dict[str, str], speech: DeviceFeatures, sampler: Sampler
) -> None:
    plans = [sampler.batch(step) for step in range(6)]
    forwards = [full(speech.crops(plan), plan) for plan in plans]
    draws = [full.draw(plan) for plan in plans]
    other = augmenter_for(all_on(sets), speech)
    for step in reversed(range(6)):
        assert_equal_draws(draws[step], other.draw(plans[step]))
        assert torch.equal(forwards[step], other(speech.crops(plans[step]), plans[step]))
        assert forwards[step].isfinite().all()
    reseeded = augmenter_for(all_on(sets), speech, seed=6)
    assert not torch.equal(forwards[0], reseeded(speech.crops(plans[0]), plans[0]))


@pytest.mark.parametrize("world_size", [2, 3, 12])
def test_the_shares_of_all_ranks_are_augmented_as_the_batch(
    full: Augmenter, speech: DeviceFeatures, sampler: Sampler, world_size: int
) -> None:
    for step in range(3):
        plan = sampler.batch(step)
        whole = full(speech.crops(plan), plan)
        shares = [plan.for_rank(rank, world_size) for rank in range(world_size)]
        parts = [full(speech.crops(share), share) for share in shares]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-6, atol=1e-5)
        for kind, draw in full.draw(plan).items():
            drawn = [(share, full.draw(share).get(kind)) for share in shares]
            places = [part.samples + share.first_sample for share, part in drawn if part]
            np.testing.assert_array_equal(np.concatenate(places), draw.samples)
            for name, values in draw.parameters.items():
                joined = np.concatenate([part.parameters[name] for _, part in drawn if part])
                np.testing.assert_array_equal(joined, values)


def test_turning_a_kind_on_leaves_the_others_parameters(
    full: Augmenter, speech: DeviceFeatures, sampler: Sampler
) -> None:
    alone = augmenter_for(only("gain", GainConfig(probability=0.5)), speech).draw(sampler.batch(1))
    together = full.draw(sampler.batch(1))
    assert_equal_draws(alone, {"gain": together["gain"]})


def test_the_loader_augments_as_the_augmenter_does(
    full: Augmenter, speech: DeviceFeatures, sampler: Sampler
) -> None:
    for config in (DataConfig(prefetch_batches=0), DataConfig(prefetch_batches=2)):
        for batch in BatchLoader(sampler, speech, full, config).batches(0, 4):
            plan = sampler.batch(batch.plan.step)
            expected = full(speech.crops(plan), plan)
            assert torch.equal(batch.features.transpose(1, 2), expected)


def test_a_sample_has_one_environment_with_its_probability(
    sets: dict[str, str], speech: DeviceFeatures
) -> None:
    shares = {"reverberation": 0.3, "noise": 0.2, "music": 0.1, "babble": 0.25}
    config = AugmentConfig(
        reverberation=ReverberationConfig(probability=0.3),
        noise=NoiseConfig(probability=0.2, features=sets["noise"]),
        music=MusicConfig(probability=0.1, features=sets["noise"]),
        babble=BabbleConfig(probability=0.25),
        spec_augment=SpecAugmentConfig(probability=0.6),
    )
    utterances = TrainingUtterances.of(speech.index)
    plan = Sampler(utterances, SamplerConfig(crop_frames=20), batch_size=8000, seed=0).batch(3)
    draws = augmenter_for(config, speech).draw(plan)
    environments = np.concatenate([draws[kind].samples for kind in shares])
    assert len(set(environments)) == len(environments)
    for kind, share in {**shares, "spec_augment": 0.6}.items():
        assert abs(len(draws[kind].samples) / 8000 - share) < 0.02
    masked = np.isin(draws["noise"].samples, draws["spec_augment"].samples)
    assert 0.5 < masked.mean() < 0.7


def test_several_environments_are_drawn_independently(full: Augmenter, speech: DeviceFeatures) -> None:
    utterances = TrainingUtterances.of(speech.index)
    plan = Sampler(utterances, SamplerConfig(crop_frames=20), batch_size=4000, seed=0).batch(0)
    draws = full.draw(plan)
    both = np.intersect1d(draws["noise"].samples, draws["babble"].samples)
    assert abs(len(both) / 4000 - 0.25) < 0.03


@pytest.mark.parametrize("kind", ["noise", "music", "babble"])
def test_the_measured_snr_is_the_drawn_one(
    sets: dict[str, str], speech: DeviceFeatures, sampler: Sampler, kind: str
) -> None:
    configs: dict[str, Any] = {
        "noise": NoiseConfig(probability=0.7, features=sets["noise"]),
        "music": MusicConfig(probability=0.7, features=sets["noise"], snr_db=(-5.0, 20.0)),
        "babble": BabbleConfig(probability=0.7),
    }
    spec = speech.manifest.spec
    augmenter = augmenter_for(only(kind, configs[kind]), speech)
    for step in range(3):
        plan = sampler.batch(step)
        draw = augmenter.draw(plan)[kind]
        clean = speech.crops(plan)
        noisy = augmenter(clean.clone(), plan)
        energies = [(x.double().exp() - spec.log_offset).mean(dim=(1, 2)) for x in (clean, noisy)]
        measured_db = 10 * torch.log10(energies[0] / (energies[1] - energies[0]))
        drawn_db = torch.from_numpy(draw.parameters["snr_db"]).double()
        torch.testing.assert_close(measured_db[draw.samples], drawn_db, rtol=0, atol=0.01)
        low, high = configs[kind].snr_db
        assert low <= drawn_db.min() and drawn_db.max() <= high
        untouched = np.setdiff1d(np.arange(BATCH_SIZE), draw.samples)
        assert len(untouched) and torch.equal(noisy[untouched], clean[untouched])


def test_noise_shorter_than_the_crop_is_looped(sets: dict[str, str], speech: DeviceFeatures) -> None:
    noise = DeviceFeatures.open(sets["noise"])
    augmenter = augmenter_for(only("noise", NoiseConfig(probability=1.0, features=sets["noise"])), speech)
    utterances = TrainingUtterances.of(speech.index)
    plan = Sampler(utterances, SamplerConfig(crop_frames=CROP_FRAMES), batch_size=40, seed=0).batch(0)
    draw = augmenter.draw(plan)["noise"]
    assert draw.crops is not None
    rows, firsts = (values[:, 0] for values in draw.crops)
    assert set(rows) == {0, 1, 2, 3}
    levels = augmenter.prepare({"noise": draw}, CROP_FRAMES)["noise"].levels
    assert levels is not None
    for i in range(len(rows)):
        recording = noise.utterance(int(rows[i])).numpy()
        offset = firsts[i] - noise.index.first_frames[rows[i]]
        expected = np.take(recording, np.arange(offset, offset + CROP_FRAMES), axis=0, mode="wrap")
        np.testing.assert_array_equal(noise.dequantise(levels[i]).numpy(), expected)


def utterances_of(speaker_ids: list[str], per_speaker: int = 6) -> TrainingUtterances:
    count = len(speaker_ids) * per_speaker
    labels = np.arange(count) % len(speaker_ids)
    lengths = np.full(count, 100)
    return TrainingUtterances(np.arange(count), labels, np.cumsum(lengths) - lengths, lengths, speaker_ids)


def at_speeds(speech: DeviceFeatures, *speeds: str) -> DeviceFeatures:
    """The same features, said to have been extracted with copies at these speeds."""
    made = copy.copy(speech)
    made.manifest = replace(speech.manifest, made_from={"speeds": list(speeds)})
    return made


def test_babble_is_made_of_other_speakers(speech: DeviceFeatures) -> None:
    # Copies at other speeds are the same person.
    utterances = utterances_of(["a", "a-sp0.9", "b", "c", "c-sp1.1"])
    babble = Babble(at_speeds(speech, "0.9", "1.1"), utterances, (3, 8))
    labels = np.repeat(np.arange(5), 400)
    uniforms = np.random.default_rng(0).random((2000, babble.num_uniforms))
    rows, firsts, weights = babble.choose(labels, uniforms, 80)
    person = np.array(["a", "a", "b", "c", "c"])
    voices = person[utterances.labels[rows]]
    assert (voices != person[labels][:, None]).all()
    for own in "abc":
        # Every utterance of the others is as likely.
        counts = np.bincount(rows[person[labels] == own].ravel(), minlength=30)
        expected = person[utterances.labels] != own
        assert (counts[~expected] == 0).all()
        assert counts[expected].min() > 0.7 * counts[expected].mean()
    offsets = firsts - utterances.first_frames[rows]
    assert offsets.min() == 0 and offsets.max() == 20
    assert set(weights.sum(axis=1)) == {3, 4, 5, 6, 7, 8}
    assert set(np.unique(weights)) == {0, 1}


def test_babble_needs_another_person(speech: DeviceFeatures) -> None:
    with pytest.raises(ConfigError, match=r"other speakers, but the training set has a alone"):
        Babble(at_speeds(speech, "0.9"), utterances_of(["a", "a-sp0.9"]), (3, 8))


def test_babble_of_people_whose_names_look_like_copies(speech: DeviceFeatures) -> None:
    babble = Babble(at_speeds(speech, "0.9"), utterances_of(["a-sp1", "a-sp2"]), (1, 1))
    uniforms = np.random.default_rng(0).random((20, babble.num_uniforms))
    rows, _, _ = babble.choose(np.zeros(20, np.int64), uniforms, 80)
    assert set((rows % 2).ravel()) == {1}


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


@pytest.mark.parametrize("kind", ["noise", "music"])
def test_noise_with_another_spec_is_refused(sets: dict[str, str], speech: DeviceFeatures, kind: str) -> None:
    config = from_mapping(AugmentConfig, {kind: {"probability": 0.2, "features": sets["other"]}})
    with pytest.raises(FeatureSetError, match=rf"augment.{kind}.features: .*hop_ms is 12.5, expected 10"):
        augmenter_for(config, speech)


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


def test_reverberation_draws_times_that_fall_with_the_band(speech: DeviceFeatures, sampler: Sampler) -> None:
    config = ReverberationConfig(probability=1.0, rt60_s=(0.3, 0.6), highest_band_ratio=(0.5, 0.9))
    parameters = (
        augmenter_for(only("reverberation", config), speech)
        .draw(sampler.batch(0))["reverberation"]
        .parameters
    )
    rt60_s = parameters["rt60_s"]
    assert rt60_s.shape == (BATCH_SIZE, 40)
    assert rt60_s[:, 0].min() >= 0.3 and rt60_s[:, 0].max() <= 0.6
    ratio = rt60_s[:, -1] / rt60_s[:, 0]
    assert ratio.min() >= 0.5 and ratio.max() <= 0.9
    assert (np.diff(rt60_s, axis=1) < 0).all()


def spans_of(hidden: np.ndarray) -> int:
    return int(np.count_nonzero(np.diff(np.concatenate([[0], hidden.astype(int)])) == 1))


def test_masks_hide_spans_by_the_mean_of_the_band(speech: DeviceFeatures, sampler: Sampler) -> None:
    config = SpecAugmentConfig(probability=1.0, num_time_masks=2, max_frames=9, num_band_masks=1, max_bands=5)
    augmenter = augmenter_for(only("spec_augment", config), speech)
    widths = set()
    for step in range(30):
        plan = sampler.batch(step)
        clean = speech.crops(plan)
        masked = augmenter(clean.clone(), plan)
        mean = clean.mean(dim=1, keepdim=True).expand_as(clean)
        draw = augmenter.draw(plan)["spec_augment"].parameters
        for i in range(BATCH_SIZE):
            frames = np.zeros(CROP_FRAMES, bool)
            for begin, end in draw["times"][i].T:
                assert 0 <= begin <= end <= CROP_FRAMES and end - begin <= 9
                frames[begin:end] = True
            bands = np.zeros(40, bool)
            ((begin, end),) = draw["bands"][i].T
            assert 0 <= begin <= end <= 40
            widths.add(end - begin)
            bands[begin:end] = True
            hidden = torch.from_numpy(frames[:, None] | bands[None, :])
            assert torch.equal(masked[i], torch.where(hidden, mean[i], clean[i]))
            assert spans_of(frames) <= 2
    assert widths == {0, 1, 2, 3, 4, 5}


def test_masks_wider_than_the_crop_are_cut(speech: DeviceFeatures, sampler: Sampler) -> None:
    config = SpecAugmentConfig(probability=1.0, max_frames=10_000, max_bands=500, num_time_masks=0)
    draw = augmenter_for(only("spec_augment", config), speech).draw(sampler.batch(0))["spec_augment"]
    assert draw.parameters["bands"].max() <= 40
    assert draw.parameters["times"].shape == (BATCH_SIZE, 2, 0)
    plan = sampler.batch(0)
    assert augmenter_for(only("spec_augment", config), speech)(speech.crops(plan), plan).isfinite().all()


def test_gain_scales_the_energies(speech: DeviceFeatures, sampler: Sampler) -> None:
    augmenter = augmenter_for(only("gain", GainConfig(probability=1.0, gain_db=(-20.0, 5.0))), speech)
    plan = sampler.batch(2)
    gain_db = augmenter.draw(plan)["gain"].parameters["gain_db"]
    offset = speech.manifest.spec.log_offset
    before = speech.crops(plan).double().exp() - offset
    after = augmenter(speech.crops(plan), plan).double().exp() - offset
    expected = before * torch.from_numpy(10.0 ** (gain_db[:, None, None] / 10))
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-8)
    assert -20 <= gain_db.min() < -10 and 0 < gain_db.max() <= 5


def test_gaussian_noise_has_its_deviation(speech: DeviceFeatures, sampler: Sampler) -> None:
    augmenter = augmenter_for(only("gaussian", GaussianConfig(probability=1.0, std_nat=(0.2, 0.8))), speech)
    added: list[Tensor] = []
    for step in range(8):
        plan = sampler.batch(step)
        noise = augmenter(speech.crops(plan), plan) - speech.crops(plan)
        std_nat = torch.from_numpy(augmenter.draw(plan)["gaussian"].parameters["std_nat"])
        assert std_nat.min() >= 0.2 and std_nat.max() <= 0.8
        torch.testing.assert_close(noise.std(dim=(1, 2)), std_nat, rtol=0.06, atol=0)
        added.extend(noise / std_nat[:, None, None])
    everything = torch.stack(added)
    assert abs(everything.mean()) < 0.02
    # Two samples never get the same noise.
    flat = everything.flatten(1)
    correlations = (flat @ flat.T / flat.shape[1]).fill_diagonal_(0)
    assert correlations.abs().max() < 0.15


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"noise": {"probability": 0.1}}, "noise: probability is 0.1 but features is null"),
        ({"music": {"probability": -1}}, "music: probability is -1"),
        ({"gain": {"probability": 1.5}}, "gain: probability is 1.5; expected 0 to 1"),
        ({"babble": {"snr_db": [9, 3]}}, r"babble: snr_db is \[9.0, 3.0\]"),
        ({"babble": {"num_voices": [0, 3]}}, r"babble: num_voices is \[0, 3\]"),
        ({"reverberation": {"rt60_s": [0.0, 0.5]}}, r"rt60_s is \[0.0, 0.5\].*0.05 to 10"),
        ({"gaussian": {"std_nat": [-0.1, 0.5]}}, "std_nat"),
        ({"spec_augment": {"max_frames": -1}}, "max_frames is -1"),
        ({"combine": "all"}, "combine"),
        (
            {"babble": {"probability": 0.6}, "reverberation": {"probability": 0.5}},
            r"add up to 1.1; expected at most 1, or combine: several",
        ),
        ({"nois": {}}, "did you mean noise"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(AugmentConfig, mapping)


def test_thirds_add_up_to_one() -> None:
    probabilities: Sequence[float] = (0.1, 0.2, 0.3, 0.4)
    kinds = ("reverberation", "noise", "music", "babble")
    mapping: dict[str, dict[str, Any]] = {
        kind: {"probability": share} for kind, share in zip(kinds, probabilities, strict=True)
    }
    for kind in ("noise", "music"):
        mapping[kind]["features"] = "somewhere"
    assert from_mapping(AugmentConfig, mapping).is_on


@pytest.mark.gpu
def test_a_gpu_augments_as_the_cpu_does(
    sets: dict[str, str], speech: DeviceFeatures, sampler: Sampler
) -> None:
    on_gpu = DeviceFeatures.open(sets["speech"], "cuda")
    config = all_on(sets)
    expected = BatchLoader(sampler, speech, augmenter_for(config, speech))
    loader = BatchLoader(sampler, on_gpu, augmenter_for(config, on_gpu))
    for batch in loader.batches(0, 30):
        torch.testing.assert_close(
            batch.features.cpu(), expected.batch(batch.plan.step).features, rtol=1e-4, atol=1e-3
        )


def test_plans_say_where_their_share_lies() -> None:
    empty = np.zeros(0, np.int64)
    assert BatchPlan(0, empty, empty, empty, 1, 1, 8, first_sample=6).share == slice(6, 6)
