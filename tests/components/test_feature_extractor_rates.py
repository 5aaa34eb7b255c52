"""Recordings of other sample rates than the features': how many had a lower one, and who is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from audio_files import noise, wav
from commands import Command, contents
from corpora import Corpus, write_corpus
from evaluator.utterances import StoredUtterances
from feature_sets import make_feature_set
from voxsrc.feature_set import FeatureSet, read_manifest
from voxsrc.features import FbankSpec

RATES_HZ = [8_000, 8_000, 44_100, 16_000]


@pytest.fixture
def mixed(tmp_path: Path) -> Corpus:
    """Eight recordings of two speakers, half of a low rate, a quarter of a high one."""
    members = {
        f"id{speaker}/s/{take}.wav": wav(noise(0.4, rate_hz, seed=10 * speaker + take), rate_hz)
        for speaker in range(2)
        for take, rate_hz in enumerate(RATES_HZ)
    }
    return write_corpus(tmp_path, members)


def as_earlier_versions(record: Path) -> bytes:
    """Takes from a shard's record what they did not count; returns what was there."""
    content = record.read_bytes()
    changed = content.replace(b', "low_rate_utterances": 2', b"")
    assert changed != content
    record.write_bytes(changed)
    return content


def test_lower_rates_are_counted_apart(mixed: Corpus, tmp_path: Path, feature_extractor: Command) -> None:
    output = tmp_path / "set"
    arguments = ["--audio", mixed.audio, "--output", output, "--num-shards", 2, "--num-workers", 1]
    assert feature_extractor("run", *arguments).code == 0
    counts = read_manifest(str(output)).counts
    assert (counts["resampled_utterances"], counts["low_rate_utterances"]) == (6, 4)
    whole = contents(output)

    # Begun by an earlier version: nobody knows of how many of its shards' utterances the rate was lower.
    (output / "manifest.json").unlink()
    record = output / "shard-00000.json"
    current = as_earlier_versions(record)
    assert feature_extractor("run", *arguments).code == 0
    counts = read_manifest(str(output)).counts
    assert counts["resampled_utterances"] == 6
    assert "low_rate_utterances" not in counts
    assert FeatureSet.open(str(output)).index.utterance_ids == list(mixed.members)
    assert (output / "shard-00000.lfb.zst").read_bytes() == whole["shard-00000.lfb.zst"]

    # The same bytes as in one go, however interrupted.
    (output / "manifest.json").unlink()
    (output / "shard-00001.json").unlink()
    record.write_bytes(current)
    assert feature_extractor("run", *arguments).code == 0
    assert contents(output) == whole


def test_a_set_that_was_not_resampled_is_as_it_was(finished: Path) -> None:
    assert b"low_rate" not in b"".join(contents(finished).values())


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, []),
        ({"resampled_utterances": 0}, []),
        ({"resampled_utterances": 5, "low_rate_utterances": 0}, []),
        (
            {"resampled_utterances": 5, "low_rate_utterances": 2},
            ["2 of 3 utterances of ", " had too low a sample rate: ", "the features reach 7600 Hz"],
        ),
        (
            {"resampled_utterances": 5},
            ["5 of 3 utterances of ", "another sample rate than 16000 Hz", "a higher rate does no harm"],
        ),
    ],
)
def test_only_lower_rates_are_warned_of(tmp_path: Path, counts: dict[str, Any], expected: list[str]) -> None:
    make_feature_set(tmp_path / "set", [[30, 40, 50]])
    path = tmp_path / "set" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "counts": counts}))
    warnings = StoredUtterances(str(tmp_path / "set"), FbankSpec(), "cpu").warnings
    assert len(warnings) == bool(expected)
    for part in expected:
        assert part in warnings[0]
