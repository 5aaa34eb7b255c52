"""Trials of held-out speakers: balanced, the same everywhere, and what calibration is fitted to."""

import numpy as np
import pytest

from voxsrc.errors import CorpusError
from voxsrc.feature_set.index import UtteranceIndex
from voxsrc.held_out import HeldOutTrials


def index_of(speakers: list[str], sessions: list[str] | None = None) -> UtteranceIndex:
    count = len(speakers)
    return UtteranceIndex(
        utterance_ids=[f"{speaker}/s/{n}.wav" for n, speaker in enumerate(speakers)],
        speaker_ids=speakers,
        session_ids=sessions or ["s"] * count,
        shards=np.zeros(count, np.int64),
        first_frames=np.arange(count, dtype=np.int64) * 100,
        num_frames=np.full(count, 100, np.int64),
    )


SPEAKERS = [f"id{n % 7}" for n in range(60)]
HELD_OUT = ["id1", "id4", "id5"]


def pairs_of(trials: HeldOutTrials) -> list[tuple[int, int]]:
    return list(zip(trials.rows[trials.first].tolist(), trials.rows[trials.second].tolist(), strict=True))


def test_trials_are_balanced_distinct_pairs_of_held_out_speakers_with_true_labels() -> None:
    trials = HeldOutTrials.of(index_of(SPEAKERS), HELD_OUT, copies={})
    assert trials.labels.sum() * 2 == len(trials.labels)
    pairs = pairs_of(trials)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    for (first, second), label in zip(pairs, trials.labels, strict=True):
        assert {SPEAKERS[first], SPEAKERS[second]} <= set(HELD_OUT)
        assert label == (SPEAKERS[first] == SPEAKERS[second])
    assert trials.speaker_ids == [SPEAKERS[row] for row in trials.rows]


def test_they_are_the_same_each_time_and_whatever_the_order_of_speakers() -> None:
    index = index_of(SPEAKERS)
    first, second = (HeldOutTrials.of(index, speakers, copies={}) for speakers in (HELD_OUT, HELD_OUT[::-1]))
    assert pairs_of(first) == pairs_of(second)


def test_speed_perturbed_copies_are_in_no_trial() -> None:
    with_copies = [*SPEAKERS, *(f"{speaker}-sp0.9" for speaker in SPEAKERS)]
    copies = {f"{speaker}-sp0.9": speaker for speaker in HELD_OUT}
    trials = HeldOutTrials.of(index_of(with_copies), [*HELD_OUT, *copies], copies=copies)
    assert set(trials.speaker_ids) == set(HELD_OUT)


def test_people_whose_names_look_like_copies_are_in_trials() -> None:
    people = [f"{speaker}-sp1" for speaker in SPEAKERS]
    held_out = [f"{speaker}-sp1" for speaker in HELD_OUT]
    trials = HeldOutTrials.of(index_of(people), held_out, copies={})
    assert set(trials.speaker_ids) == set(held_out)


def test_target_trials_are_of_two_sessions_where_there_are_enough() -> None:
    sessions = [f"s{n // 7 % 3}" for n in range(60)]  # three of each speaker
    trials = HeldOutTrials.of(index_of(SPEAKERS, sessions), HELD_OUT, copies={})
    targets = [pair for pair, label in zip(pairs_of(trials), trials.labels, strict=True) if label]
    assert len(targets) >= 30
    assert all(sessions[first] != sessions[second] for first, second in targets)
    assert not trials.in_session.any()
    others = [pair for pair, label in zip(pairs_of(trials), trials.labels, strict=True) if not label]
    assert any(sessions[first] == sessions[second] for first, second in others), "of other speakers"


def test_target_trials_of_one_session_are_taken_and_counted_where_there_are_no_others() -> None:
    sessions = ["t" if n < 7 else "s" for n in range(60)]  # one utterance of each speaker is apart
    trials = HeldOutTrials.of(index_of(SPEAKERS, sessions), HELD_OUT, copies={})
    pairs = zip(pairs_of(trials), trials.labels, strict=True)
    within = [bool(label) and sessions[a] == sessions[b] for (a, b), label in pairs]
    assert trials.in_session.tolist() == within
    assert sum(within) > 30
    some = trials.among(np.arange(len(trials.rows)) % 4 > 0)
    assert 0 < some.in_session.sum() < sum(within)
    assert not some.in_session[some.labels == 0].any()
    scores = np.random.default_rng(0).normal(trials.labels)
    assert trials.calibration(scores, "any").fitted_on["targets_within_a_session"] == sum(within)


def test_limits_hold() -> None:
    trials = HeldOutTrials.of(index_of(SPEAKERS), HELD_OUT, copies={}, max_utterances=12, max_trials=5)
    assert len(trials.rows) == 12
    assert len(trials.labels) == 10


def test_trials_of_one_kind_are_refused() -> None:
    with pytest.raises(CorpusError, match="of 1 speakers make no trials of both kinds"):
        HeldOutTrials.of(index_of(SPEAKERS), ["id1"], copies={})


def test_unusable_utterances_take_their_trials_with_them() -> None:
    trials = HeldOutTrials.of(index_of(SPEAKERS), HELD_OUT, copies={})
    usable = np.arange(len(trials.rows)) % 3 > 0
    kept = trials.among(usable)
    assert kept.rows.tolist() == trials.rows[usable].tolist()
    assert kept.speaker_ids == [SPEAKERS[row] for row in kept.rows]
    gone = set(trials.rows[~usable].tolist())
    assert pairs_of(kept) == [pair for pair in pairs_of(trials) if not gone & set(pair)]
    with pytest.raises(CorpusError, match="0 can be used"):
        trials.among(np.zeros(len(trials.rows), bool))


def test_a_calibration_says_what_it_was_fitted_on() -> None:
    trials = HeldOutTrials.of(index_of(SPEAKERS), HELD_OUT, copies={})
    noise = np.random.default_rng(0).normal(0, 0.2, len(trials.labels))
    calibration = trials.calibration(trials.labels * 0.5 + noise, "cosine")
    assert calibration.well_ordered
    facts = dict(calibration.fitted_on)
    assert facts.pop("eer") < 0.2
    assert 0 < facts.pop("cllr") < 0.6
    assert facts == {
        "scoring": "cosine",
        "speakers": 3,
        "utterances": len(trials.rows),
        "trials": len(trials.labels),
        "targets": int(trials.labels.sum()),
        "targets_within_a_session": int(trials.labels.sum()),
    }
