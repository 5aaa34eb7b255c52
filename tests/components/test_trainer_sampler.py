"""Batches are a pure function of (seed, step), hold distinct speakers, and leave no utterance out."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.epochs import GroupEpochs, repeated_share
from trainer.sampler import BatchPlan, Sampler, SamplerConfig
from trainer.utterances import TrainingUtterances
from voxsrc.errors import ConfigError
from voxsrc.feature_set.index import UtteranceIndex
from voxsrc.randomness import RandomStream, integers_below

IN_A_NEW_PROCESS = """
import numpy as np
from test_trainer_sampler import digest, utterances_of
from trainer.sampler import Sampler, SamplerConfig
sampler = Sampler(utterances_of([5, 9, 4, 7]), SamplerConfig(utterances_per_speaker=2), batch_size=6, seed=3)
print(digest(sampler.batch(11)))
"""


def utterances_of(counts: list[int], num_frames: int | list[int] = 300) -> TrainingUtterances:
    """So many utterances of each speaker, interleaved as no sorted list has them."""
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = labels[np.random.default_rng(0).permutation(len(labels))]
    lengths = np.broadcast_to(np.asarray(num_frames, np.int64), labels.shape).copy()
    firsts = np.cumsum(lengths) - lengths
    # Rows with gaps, as a subset has them.
    rows = 2 * np.arange(len(labels)) + 1
    return TrainingUtterances(rows, labels, firsts, lengths, [f"id{s:03}" for s in range(len(counts))])


def group_sampler(counts: list[int], num_speakers: int, seed: int = 1, **fields: object) -> Sampler:
    config = SamplerConfig(**{"utterances_per_speaker": 2, "few_utterances": "repeat", **fields})  # type: ignore[arg-type]
    batch_size = num_speakers * config.utterances_per_speaker
    return Sampler(utterances_of(counts), config, batch_size=batch_size, seed=seed)


def digest(plan: BatchPlan) -> list[list[int]]:
    return [plan.rows.tolist(), plan.first_frames.tolist(), plan.labels.tolist()]


def epoch_of(sampler: Sampler, epoch: int = 0) -> list[BatchPlan]:
    first = epoch * sampler.steps_per_epoch
    return [sampler.batch(step) for step in range(first, first + sampler.steps_per_epoch)]


@given(counter=st.integers(0, 2**63), count=st.integers(1, 40))
def test_a_block_of_random_words_is_a_function_of_seed_purpose_and_counter(counter: int, count: int) -> None:
    words = RandomStream(5, "crops").words(counter, count)
    np.testing.assert_array_equal(words, RandomStream(5, "crops").words(counter, count))
    np.testing.assert_array_equal(words[:-1], RandomStream(5, "crops").words(counter, count)[:-1])
    for other in (RandomStream(6, "crops"), RandomStream(5, "noise")):
        assert not (words == other.words(counter, count)).any()
    assert not (words == RandomStream(5, "crops").words(counter + 1, count)).any()


def test_random_words_never_change() -> None:
    # A change here changes the data order of every training that is resumed afterwards.
    assert RandomStream(0, "crop_starts").words(7, 2).tolist() == [262668225930749885, 14314242598020503564]


def test_random_numbers_have_their_distributions() -> None:
    stream = RandomStream(1, "numbers")
    uniforms = stream.uniforms(0, (20_000,))
    assert uniforms.min() >= 0 and uniforms.max() < 1
    assert np.histogram(uniforms, 10, (0, 1))[0].min() > 1_800
    normals = stream.normals(1, (20_001,))
    assert abs(normals.mean()) < 0.03 and abs(normals.std() - 1) < 0.03
    assert 0.94 < (abs(normals) < 1.96).mean() < 0.96
    assert sorted(stream.permutation(2, 500)) == list(range(500))
    with pytest.raises(ValueError, match="counter -1"):
        stream.words(-1, 1)


@given(st.integers(1, 2**52))
def test_integers_stay_below_their_limit(limit: int) -> None:
    greatest = np.array([1.0 - 2.0**-53])
    assert integers_below(limit, greatest)[0] == limit - 1 or limit > 2**51
    assert 0 <= integers_below(limit, greatest)[0] < limit


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[int], int, int]:
    """Utterances of each speaker, speakers in a batch, utterances of each."""
    counts = draw(st.lists(st.integers(1, 25), min_size=2, max_size=14))
    if draw(st.booleans()):
        counts[0] *= 20  # one speaker with far more than the others
    return counts, draw(st.integers(1, len(counts))), draw(st.integers(2, 4))


@settings(max_examples=150)
@given(corpus=corpora(), seed=st.integers(0, 3), epoch=st.integers(0, 2))
def test_group_batches_have_distinct_speakers_and_use_every_utterance(
    corpus: tuple[list[int], int, int], seed: int, epoch: int
) -> None:
    counts, num_speakers, group_size = corpus
    sampler = group_sampler(counts, num_speakers, seed, utterances_per_speaker=group_size)
    plans = epoch_of(sampler, epoch)
    groups_of = Counter[int]()
    for plan in plans:
        groups = plan.labels.reshape(num_speakers, group_size)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0])) == num_speakers
        groups_of.update(groups[:, 0].tolist())
        for label, rows in zip(groups[:, 0], plan.rows.reshape(num_speakers, group_size), strict=True):
            assert len(set(rows)) == min(group_size, counts[label])
    assert {row for plan in plans for row in plan.rows} == set(sampler.utterances.rows)
    needed = [-(-count // group_size) for count in counts]
    assert len(plans) == max(-(-sum(needed) // num_speakers), max(needed))
    # Only the least used speakers have more groups than they need.
    for label, count in groups_of.items():
        assert count == needed[label] or needed[label] < count <= min(groups_of.values()) + 1


@settings(max_examples=60)
@given(corpus=corpora(), most=st.integers(4, 12))
def test_a_limit_per_speaker_holds_in_every_epoch(corpus: tuple[list[int], int, int], most: int) -> None:
    counts, num_speakers, group_size = corpus
    for sampler in (
        group_sampler(
            counts, num_speakers, utterances_per_speaker=group_size, max_utterances_per_speaker=most
        ),
        Sampler(utterances_of(counts), SamplerConfig(max_utterances_per_speaker=most), batch_size=1, seed=0),
    ):
        used = {(lab, row) for p in epoch_of(sampler) for lab, row in zip(p.labels, p.rows, strict=True)}
        assert Counter(label for label, _ in used) == {s: min(c, most) for s, c in enumerate(counts)}


@pytest.mark.parametrize("group_size", [1, 2])
def test_successive_epochs_go_through_all_utterances_of_a_limited_speaker(group_size: int) -> None:
    config = SamplerConfig(utterances_per_speaker=group_size, max_utterances_per_speaker=4)
    sampler = Sampler(utterances_of([40, 20]), config, batch_size=4, seed=0)
    used = Counter(row for epoch in range(3, 13) for plan in epoch_of(sampler, epoch) for row in plan.rows)
    labels = dict(zip(sampler.utterances.rows, sampler.utterances.labels, strict=True))
    assert used == {row: 1 if label == 0 else 2 for row, label in labels.items()}


@settings(max_examples=80)
@given(counts=st.lists(st.integers(1, 9), min_size=2, max_size=6), batch_size=st.integers(1, 40))
def test_class_batches_use_every_utterance_once_an_epoch(counts: list[int], batch_size: int) -> None:
    sampler = Sampler(utterances_of(counts), SamplerConfig(), batch_size=batch_size, seed=0)
    total = sum(counts)
    num_steps = -(-3 * total // batch_size)
    rows = np.concatenate([sampler.batch(step).rows for step in range(num_steps)])
    epochs = rows[: 3 * total].reshape(3, total)
    assert (np.sort(epochs) == sampler.utterances.rows).all()
    assert sampler.steps_per_epoch == -(-total // batch_size)


def test_epochs_differ() -> None:
    sampler = Sampler(utterances_of([20, 20]), SamplerConfig(), batch_size=40, seed=0)
    assert not (sampler.batch(0).rows == sampler.batch(1).rows).all()
    groups = group_sampler([20, 20], 2)
    first, second = ([p.rows.tolist() for p in epoch_of(groups, epoch)] for epoch in (0, 1))
    assert first != second


@pytest.mark.parametrize("group_size", [1, 2])
def test_the_order_of_calls_and_other_objects_change_nothing(group_size: int) -> None:
    def new(seed: int = 3) -> Sampler:
        config = SamplerConfig(utterances_per_speaker=group_size)
        return Sampler(utterances_of([5, 9, 4, 7]), config, batch_size=6, seed=seed)

    # Plans are made 64 steps at a time: some steps of five such blocks.
    steps = [*range(20), *range(55, 75), *range(120, 300, 7)]
    sampler = new()
    forwards = [digest(sampler.batch(step)) for step in steps]
    backwards = [digest(sampler.batch(step)) for step in reversed(steps)]
    fresh = [digest(new().batch(step)) for step in steps]
    assert forwards == backwards[::-1] == fresh
    assert forwards != [digest(new(seed=4).batch(step)) for step in steps]


def test_a_negative_step_is_refused() -> None:
    sampler = group_sampler([5] * 8, 4)
    with pytest.raises(ValueError, match="step -1"):
        sampler.batch(-1)


def test_another_process_makes_the_same_batch() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    made = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    sampler = group_sampler([5, 9, 4, 7], 3, seed=3)
    assert made.stdout.strip() == str(digest(sampler.batch(11)))


@pytest.mark.parametrize(("group_size", "batch_size", "world_size"), [(1, 12, 4), (2, 12, 3), (3, 12, 2)])
def test_the_shares_of_all_ranks_are_the_batch(group_size: int, batch_size: int, world_size: int) -> None:
    config = SamplerConfig(utterances_per_speaker=group_size)
    sampler = Sampler(utterances_of([8] * 8), config, batch_size=batch_size, seed=0)
    plan = sampler.batch(5)
    shares = [plan.for_rank(rank, world_size) for rank in range(world_size)]
    for name in ("rows", "first_frames", "labels"):
        joined = np.concatenate([getattr(share, name) for share in shares])
        np.testing.assert_array_equal(joined, getattr(plan, name))
    for share in shares:
        np.testing.assert_array_equal(plan.rows[share.share], share.rows)
        groups = share.labels.reshape(-1, group_size)
        assert (groups == groups[:, :1]).all()


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    plan = group_sampler([8] * 8, 6).batch(0)
    with pytest.raises(ConfigError, match=r"batch_size is 12; expected a multiple of 8: 4 processes × .* 2"):
        plan.for_rank(0, 4)
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        plan.for_rank(2, 2)


def test_crops_lie_within_their_utterances_and_reach_both_ends() -> None:
    lengths = [200, 201, 230, 150, 1, 400] * 20
    utterances = utterances_of([60, 60], lengths)
    sampler = Sampler(utterances, SamplerConfig(), batch_size=60, seed=0)
    offsets: dict[int, set[int]] = {}
    place = {row: i for i, row in enumerate(utterances.rows)}
    for step in range(200):
        plan = sampler.batch(step)
        for row, first in zip(plan.rows, plan.first_frames, strict=True):
            i = place[row]
            offsets.setdefault(lengths[i], set()).add(int(first - utterances.first_frames[i]))
    assert offsets[200] == {0}
    assert offsets[201] == {0, 1}
    assert offsets[230] == set(range(31))
    assert offsets[150] == set(range(150))  # looped, so it can begin anywhere
    assert offsets[1] == {0}
    assert min(offsets[400]) == 0 and max(offsets[400]) == 200 and len(offsets[400]) > 190


def test_speakers_meet_by_chance() -> None:
    num_speakers, num_groups = 40, 40
    sampler = group_sampler([2 * num_groups] * num_speakers, 8)
    plans = epoch_of(sampler)
    present = np.zeros((len(plans), num_speakers))
    for step, plan in enumerate(plans):
        present[step, plan.labels] = 1
    met = present.T @ present - num_groups * np.eye(num_speakers)
    # 40 · 40 / 200 = 8 expected; speakers laid side by side would meet 40 times.
    assert met.max() < 24
    # The order of the groups within a batch does not give the speaker away.
    places = [int(np.flatnonzero(plan.labels[::2] == 0)[0]) for plan in plans if 0 in plan.labels]
    assert set(places) == set(range(8))


def test_one_dominant_speaker_is_spread_over_all_batches() -> None:
    sampler = group_sampler([200, 4, 4, 4], 3)
    plans = epoch_of(sampler)
    assert len(plans) == 100
    assert all(0 in plan.labels for plan in plans)
    assert "64.7 % of the groups are repetitions" in sampler.describe()


@pytest.mark.parametrize(
    ("counts", "num_speakers", "num_processes", "told", "remedy"),
    [
        # Speakers are few for the batch: with fewer utterances of each, more would be repeated.
        ([8] * 33, 32, 1, "17.5 %", "batch_size=32: 8.3 %"),
        ([2] * 33, 32, 1, "48.4 %", "batch_size=8: 8.3 %"),
        ([2] * 33, 32, 4, "48.4 %", "batch_size=8: 8.3 %"),
        ([2] * 33, 32, 8, "48.4 %", "batch_size=16: 17.5 %"),
        # One speaker dominates.
        ([200, 4, 4, 4], 3, 1, "64.7 %", "sampler.max_utterances_per_speaker=6: 0.0 %"),
        # Nothing helps, or is needed.
        ([2] * 3, 2, 1, "25.0 %", None),
        ([6] * 40, 32, 1, "6.2 %", None),
    ],
)
def test_the_advice_leads_to_the_share_that_it_names(
    counts: list[int], num_speakers: int, num_processes: int, told: str, remedy: str | None
) -> None:
    described = group_sampler(counts, num_speakers).describe(num_processes)
    hint = f" (--set {remedy})" if remedy else ""
    assert f"; {told} of the groups are repetitions{hint}; " in described
    if remedy is None:
        return
    key, value, then = re.split("=|: ", remedy)
    if key == "batch_size":
        followed = group_sampler(counts, int(value) // 2)
    else:
        followed = group_sampler(counts, num_speakers, max_utterances_per_speaker=int(value))
    repetitions = f"; {then} of the groups are repetitions"
    assert (repetitions in followed.describe(num_processes)) == (then != "0.0 %")


@pytest.mark.parametrize("most", [None, 3, 6])
@pytest.mark.parametrize("num_speakers", [2, 3, 5])
def test_the_share_is_that_of_the_epochs(num_speakers: int, most: int | None) -> None:
    labels = np.repeat(np.arange(5), [9, 1, 4, 6, 3])
    epochs = GroupEpochs(labels, num_speakers=num_speakers, group_size=2, max_per_speaker=most, seed=0)
    share = repeated_share(np.bincount(labels), num_speakers, 2, most)
    assert share == 1 - epochs.num_groups / (epochs.num_batches * num_speakers)


@settings(max_examples=40)
@given(seed=st.integers(0, 1000))
def test_speakers_across_two_rows_of_the_table_are_spread_evenly(seed: int) -> None:
    # Three speakers of 4 groups in 2 rows of 6: one of them always lies across both rows.
    epochs = GroupEpochs(
        np.repeat(np.arange(3), 8), num_speakers=2, group_size=2, max_per_speaker=None, seed=seed
    )
    batches = epochs.batches(0)
    assert batches.shape == (6, 2, 2)
    assert sorted(batches.reshape(-1)) == list(range(24))


@pytest.mark.parametrize(
    ("counts", "batch_size", "fields", "message"),
    [
        ([5, 5, 5], 8, {}, r"4 speakers with 2 .* has 3: set batch_size to at most 6"),
        ([5, 5, 5], 5, {}, r"batch_size is 5; expected a multiple of .* 2"),
        ([5, 5, 5], 0, {}, "batch_size is 0"),
        ([5, 1, 1], 4, {}, r"2 of 3 speakers have fewer .* \(id001 has 1, id002 has 1\).*few_utterances"),
        ([5], 2, {}, "has 1 speaker"),
        ([5, 5], 4, {"crop_frames": 301, "short_utterances": "refuse"}, r"10 of 10 utterances.*301"),
    ],
)
def test_what_cannot_be_sampled_is_refused_with_a_remedy(
    counts: list[int], batch_size: int, fields: dict[str, object], message: str
) -> None:
    config = SamplerConfig(utterances_per_speaker=2, **fields)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        Sampler(utterances_of(counts), config, batch_size=batch_size, seed=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"utterances_per_speaker": 0}, "utterances_per_speaker is 0"),
        ({"crop_frames": 0}, "crop_frames is 0"),
        ({"utterances_per_speaker": 3, "max_utterances_per_speaker": 2}, "max_utterances_per_speaker is 2"),
        ({"short_utterances": "drop"}, "short_utterances is 'drop'; expected wrap or refuse"),
        ({"few_utterances": "drop"}, "few_utterances is 'drop'; expected refuse or repeat"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplerConfig(**fields)  # type: ignore[arg-type]


def test_single_utterances_give_different_crops_if_asked_to() -> None:
    sampler = group_sampler([1, 1, 1], 3)
    plans = [sampler.batch(step) for step in range(20)]
    assert sampler.steps_per_epoch == 1
    for plan in plans:
        assert (plan.rows[::2] == plan.rows[1::2]).all()
    assert any((plan.first_frames[::2] != plan.first_frames[1::2]).all() for plan in plans)


def index_of(speakers: list[str]) -> UtteranceIndex:
    count = len(speakers)
    lengths = np.arange(1, count + 1) * 10
    ids = [f"{speaker}/s/{i}" for i, speaker in enumerate(speakers)]
    return UtteranceIndex(
        ids, speakers, ["s"] * count, np.zeros(count, np.int64), np.cumsum(lengths) - lengths, lengths
    )


def test_a_choice_of_speakers_is_a_choice_of_rows() -> None:
    index = index_of(["c", "a", "b", "a", "c", "d"])
    chosen = TrainingUtterances.of(index, ["d", "a", "c"])
    assert chosen.speaker_ids == ["a", "c", "d"]
    assert chosen.rows.tolist() == [0, 1, 3, 4, 5]
    assert chosen.labels.tolist() == [1, 0, 0, 1, 2]
    assert chosen.num_frames.tolist() == [10, 20, 40, 50, 60]
    assert chosen.first_frames.tolist() == [0, 10, 60, 100, 150]
    everyone = TrainingUtterances.of(index)
    assert everyone.num_speakers == 4 and len(everyone) == 6


def test_speakers_without_utterances_are_named() -> None:
    with pytest.raises(ConfigError, match=r"2 of 3 speakers .*\(x, y\); choose among its 2"):
        TrainingUtterances.of(index_of(["a", "b"]), ["a", "y", "x"])
    with pytest.raises(ConfigError, match="no speakers"):
        TrainingUtterances.of(index_of(["a", "b"]), [])


def test_the_description_says_what_is_looped_and_left_out() -> None:
    config = SamplerConfig(crop_frames=301, max_utterances_per_speaker=3)
    described = Sampler(utterances_of([5, 4]), config, batch_size=2, seed=0).describe()
    assert "9 utterances of 2 speakers" in described
    assert "9 utterances under 301 frames are looped" in described
    assert "3 utterances above 3 per speaker wait for another epoch" in described
