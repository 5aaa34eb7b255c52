"""Augmentation does what its parameters say, and draws them by (seed, step) alone."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from feature_sets import make_feature_set
from planned_crops import augmented, crops_of
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
from voxsrc.features import FbankSpec

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
    assert torch.equal(augmented(augmenter, crops_of(speech, plan), plan), crops_of(speech, plan))


def test_draws_depend_on_seed_and_step_alone(
    full: Augmenter, sets: dict[str, str], speech: DeviceFeatures, sampler: Sampler
) -> None:
    plans = [sampler.batch(step) for step in range(6)]
    forwards = [augmented(full, crops_of(speech, plan), plan) for plan in plans]
    draws = [full.draw(plan) for plan in plans]
    other = augmenter_for(all_on(sets), speech)
    for step in reversed(range(6)):
        assert_equal_draws(draws[step], other.draw(plans[step]))
        assert torch.equal(forwards[step], augmented(other, crops_of(speech, plans[step]), plans[step]))
        assert forwards[step].isfinite().all()
    reseeded = augmenter_for(all_on(sets), speech, seed=6)
    assert not torch.equal(forwards[0], augmented(reseeded, crops_of(speech, plans[0]), plans[0]))


@pytest.mark.parametrize("world_size", [2, 3, 12])
def test_the_shares_of_all_ranks_are_augmented_as_the_batch(
    full: Augmenter, speech: DeviceFeatures, sampler: Sampler, world_size: int
) -> None:
    for step in range(3):
        plan = sampler.batch(step)
        whole = augmented(full, crops_of(speech, plan), plan)
        shares = [plan.for_rank(rank, world_size) for rank in range(world_size)]
        parts = [augmented(full, crops_of(speech, share), share) for share in shares]
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
            expected = augmented(full, crops_of(speech, plan), plan)
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
        clean = crops_of(speech, plan)
        noisy = augmented(augmenter, clean.clone(), plan)
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


@pytest.mark.parametrize("kind", ["noise", "music"])
def test_noise_with_another_spec_is_refused(sets: dict[str, str], speech: DeviceFeatures, kind: str) -> None:
    config = from_mapping(AugmentConfig, {kind: {"probability": 0.2, "features": sets["other"]}})
    with pytest.raises(FeatureSetError, match=rf"augment.{kind}.features: .*hop_ms is 12.5, expected 10"):
        augmenter_for(config, speech)


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
        clean = crops_of(speech, plan)
        masked = augmented(augmenter, clean.clone(), plan)
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
    assert (
        augmented(augmenter_for(only("spec_augment", config), speech), crops_of(speech, plan), plan)
        .isfinite()
        .all()
    )


def test_gain_scales_the_energies(speech: DeviceFeatures, sampler: Sampler) -> None:
    augmenter = augmenter_for(only("gain", GainConfig(probability=1.0, gain_db=(-20.0, 5.0))), speech)
    plan = sampler.batch(2)
    gain_db = augmenter.draw(plan)["gain"].parameters["gain_db"]
    offset = speech.manifest.spec.log_offset
    before = crops_of(speech, plan).double().exp() - offset
    after = augmented(augmenter, crops_of(speech, plan), plan).double().exp() - offset
    expected = before * torch.from_numpy(10.0 ** (gain_db[:, None, None] / 10))
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-8)
    assert -20 <= gain_db.min() < -10 and 0 < gain_db.max() <= 5


def test_gaussian_noise_has_its_deviation(speech: DeviceFeatures, sampler: Sampler) -> None:
    augmenter = augmenter_for(only("gaussian", GaussianConfig(probability=1.0, std_nat=(0.2, 0.8))), speech)
    added: list[Tensor] = []
    for step in range(8):
        plan = sampler.batch(step)
        noise = augmented(augmenter, crops_of(speech, plan), plan) - crops_of(speech, plan)
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
