"""The bundled real speech: whole, small, licensed, and reproducible."""

import importlib.util
import os
import re
import types
from collections import Counter
from pathlib import Path

import pytest

from voxsrc.corpus import read_trials, read_utterance_list

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = REPOSITORY / "data" / "samples"
REALSPEECH = Path(os.environ.get("VOXSRC_REALSPEECH", REPOSITORY.parent / "shared" / "realspeech"))


def load_script() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("make_samples", SAMPLES / "make_samples.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def audio_files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for fold in ("train", "test")
        for path in (root / fold).rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("fold", ["train", "test"])
def test_the_list_names_exactly_the_files(fold: str) -> None:
    listed = read_utterance_list(str(SAMPLES / f"{fold}_list.txt"))
    on_disk = {p.relative_to(SAMPLES).as_posix() for p in (SAMPLES / fold).rglob("*") if p.is_file()}
    assert {u.utterance_id for u in listed} == on_disk
    assert all(u.utterance_id.split("/")[:2] == [fold, u.speaker_id] for u in listed)


def test_it_is_enough_to_train_and_evaluate_on() -> None:
    train = Counter(u.speaker_id for u in read_utterance_list(str(SAMPLES / "train_list.txt")))
    test = Counter(u.speaker_id for u in read_utterance_list(str(SAMPLES / "test_list.txt")))
    assert len(train) >= 40
    assert min(train.values()) >= 3
    assert len(test) >= 10
    assert min(test.values()) >= 2
    assert not set(train) & set(test)


def test_trials_are_balanced_and_only_of_bundled_utterances() -> None:
    speaker_of = {u.utterance_id: u.speaker_id for u in read_utterance_list(str(SAMPLES / "test_list.txt"))}
    trials = read_trials(str(SAMPLES / "test_trials.txt"))
    assert len(trials) >= 200
    assert trials.labels is not None
    assert 2 * trials.labels.sum() == len(trials)
    assert set(trials.utterance_ids()) == set(speaker_of)
    same = [speaker_of[a] == speaker_of[b] for a, b in zip(trials.enrollments, trials.tests, strict=True)]
    assert same == trials.labels.astype(bool).tolist()


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 8_000_000


def test_every_speaker_is_attributed_under_a_licence_that_allows_it() -> None:
    text = (SAMPLES / "ATTRIBUTION.md").read_text()
    rows = re.findall(
        r"^\| ([a-z]\S*) \| (train|test) \| .* \| ([^|]+) \| \w+ \| (\d+) \| ([\d.]+) \|$", text, re.M
    )
    counted = {(speaker, fold): int(count) for speaker, fold, _, count, _ in rows}
    bundled = Counter(
        (u.speaker_id, fold)
        for fold in ("train", "test")
        for u in read_utterance_list(str(SAMPLES / f"{fold}_list.txt"))
    )
    assert counted == bundled
    assert all(re.match(r"(GPL|LGPL|BSD|CC)-", licence) for _, _, licence, _, _ in rows)
    assert not [speaker for speaker, _ in counted if speaker.startswith(("dra-", "faq-"))]
    assert all(2.0 * int(count) <= float(seconds) <= 13.0 * int(count) for *_, count, seconds in rows)
    for licence in ("GPL-2", "GPL-3", "LGPL-3", "BSD-2-Clause-CMU"):
        assert (SAMPLES / "licences" / f"{licence}.txt").stat().st_size > 1000


def test_licences_that_forbid_sale_are_not_allowed() -> None:
    allowed = load_script().ALLOWED_LICENCE
    assert not allowed.match("Drascula freeware licence (DFSG main; no sale of the game alone)")
    assert allowed.match("CC-BY-SA-3.0")


@pytest.mark.real_speech
def test_the_script_makes_the_bundle_byte_for_byte(tmp_path: Path) -> None:
    if not (REALSPEECH / "provenance.tsv").exists():
        pytest.skip(f"{REALSPEECH} is not there; set VOXSRC_REALSPEECH to the folder of real speech")
    load_script().make_samples(REALSPEECH, tmp_path)
    assert audio_files(tmp_path) == audio_files(SAMPLES)
    for name in ("train_list.txt", "test_list.txt", "test_trials.txt", "ATTRIBUTION.md"):
        assert (tmp_path / name).read_bytes() == (SAMPLES / name).read_bytes(), name
    shared = set((REALSPEECH / "test_trials.txt").read_text().splitlines())
    assert set((SAMPLES / "test_trials.txt").read_text().splitlines()) <= shared
