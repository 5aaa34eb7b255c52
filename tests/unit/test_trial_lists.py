"""Official lists are known by their checksum, whatever a copy did to the line ends."""

import hashlib
from pathlib import Path

import pytest

from voxsrc import trial_lists
from voxsrc.corpus import TrialList, read_trials
from voxsrc.errors import CorpusError, NotFoundError
from voxsrc.trial_lists import (
    TRIAL_LISTS,
    OfficialList,
    contradictions,
    recognise,
    speaker_pairs,
    speakers_from_paths,
)

CLEANED = b"1 id1/a/1.wav id1/b/1.wav\n0 id1/a/1.wav id2/a/1.wav\n0 id1/b/1.wav id2/a/1.wav\n"
ORIGINAL = CLEANED + b"1 id2/a/1.wav id2/b/1.wav\n"


@pytest.fixture(autouse=True)
def tiny_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(name: str, content: bytes, note: str) -> OfficialList:
        md5, targets = hashlib.md5(content).hexdigest(), content.count(b"1 id")
        num_lines = content.count(b"\n")
        return OfficialList(name, "veri.txt", "tiny.txt", "trials", num_lines, targets, md5, 2, note=note)

    lists = (
        tiny("tiny", CLEANED, "Tiny, cleaned"),
        tiny("tiny-original", ORIGINAL, "Tiny, original (before the labels were cleaned)"),
    )
    monkeypatch.setattr(trial_lists, "TRIAL_LISTS", {item.name: item for item in lists})


def test_a_list_is_known_by_its_checksum(tmp_path: Path) -> None:
    (tmp_path / "veri.txt").write_bytes(CLEANED)
    uri = str(tmp_path / "veri.txt")
    assert recognise(uri) == recognise(CLEANED)
    assert recognise(uri).name == "tiny"
    assert recognise(uri).description == "Tiny, cleaned (3 trials; MD5 as published)"
    assert recognise(CLEANED).caution is None
    with pytest.raises(NotFoundError):
        recognise(str(tmp_path / "absent.txt"))


@pytest.mark.parametrize(
    "copy",
    [
        CLEANED.replace(b"\n", b"\r\n"),
        CLEANED.removesuffix(b"\n"),
        CLEANED + b"\n",
        CLEANED.replace(b"\n", b" \n"),
        b"\xef\xbb\xbf" + CLEANED,
    ],
)
def test_line_ends_do_not_hide_a_list_but_are_told(copy: bytes) -> None:
    assert recognise(copy).name == "tiny"
    assert recognise(copy).description == "Tiny, cleaned (3 trials; MD5 as published once its line ends are)"


def test_a_list_published_with_crlf_is_known_from_a_copy_without(monkeypatch: pytest.MonkeyPatch) -> None:
    dos = hashlib.md5(CLEANED.replace(b"\n", b"\r\n")).hexdigest()
    published = OfficialList("dos", "veri.txt", "x.txt", "trials", 3, 1, dos, 2, note="Dos, cleaned")
    monkeypatch.setattr(trial_lists, "TRIAL_LISTS", {"dos": published})
    assert recognise(CLEANED).name == "dos"
    assert recognise(CLEANED).evidence == "normalised"


@pytest.mark.parametrize(
    "copy",
    [
        CLEANED.replace(b"id2", b"id3"),
        CLEANED.replace(b" ", b"\t"),
        b"".join(sorted(CLEANED.splitlines(keepends=True))),
    ],
)
def test_equal_counts_alone_are_not_taken_for_the_list(copy: bytes) -> None:
    assert recognise(copy).name is None
    assert recognise(copy).description == (
        "looks like Tiny, cleaned by its counts (3 trials, 1 targets), but its checksum is not the "
        "published one"
    )


@pytest.mark.parametrize("content", [CLEANED[26:], CLEANED.replace(b"0 id1/a", b"1 id1/a"), b""])
def test_other_counts_are_another_list(content: bytes) -> None:
    assert recognise(content).name is None
    num_trials = content.count(b"\n")
    assert recognise(content).description == f"not an official list ({num_trials} trials)"


def test_an_original_list_comes_with_a_caution() -> None:
    found = recognise(ORIGINAL)
    assert found.description == "Tiny, original (4 trials; MD5 as published)"
    assert found.caution is not None
    assert "known label errors" in found.caution
    assert "Tiny, cleaned (veri.txt, 3 trials)" in found.caution
    assert recognise(ORIGINAL.replace(b"id2", b"id7")).caution == found.caution


def test_each_original_list_has_its_cleaned_one() -> None:
    assert set(TRIAL_LISTS) == {f"vox1-{part}{kind}" for part in "OEH" for kind in ("", "-original")}
    for name, official in TRIAL_LISTS.items():
        assert official.name == name
        assert official.title == f"VoxCeleb1-{name[5]}, {'original' if name[6:] else 'cleaned'}"
        cleaned = TRIAL_LISTS[name.removesuffix("-original")]
        assert cleaned.num_lines <= official.num_lines
        assert cleaned.num_targets <= official.num_targets < official.num_lines


def trials_of(folder: Path, text: str) -> TrialList:
    (folder / "trials.txt").write_text(text)
    return read_trials(str(folder / "trials.txt"))


def test_speakers_are_read_from_paths_below_any_common_folder(tmp_path: Path) -> None:
    plain = trials_of(tmp_path, CLEANED.decode())
    assert speakers_from_paths(plain)["id1/b/1.wav"] == "id1"
    below = trials_of(tmp_path, CLEANED.decode().replace(" id", " voxceleb1/id"))
    assert speakers_from_paths(below)["voxceleb1/id2/a/1.wav"] == "id2"
    pairs = speaker_pairs(below, speakers_from_paths(below))
    assert pairs == [("id1", "id1"), ("id1", "id2"), ("id1", "id2")]
    assert contradictions(below, pairs) == []


def test_paths_without_speakers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="give a list"):
        speakers_from_paths(trials_of(tmp_path, "1 034374.wav 053313.wav\n0 019394.wav 002252.wav\n"))


def test_labels_that_deny_the_speakers_are_found(tmp_path: Path) -> None:
    trials = trials_of(tmp_path, CLEANED.decode().replace("0 id1/b", "1 id1/b"))
    pairs = speaker_pairs(trials, speakers_from_paths(trials))
    assert contradictions(trials, pairs) == [2]
    assert contradictions(trials, [("a", "b"), *pairs[1:]]) == [0, 2]
    blind = trials_of(tmp_path, "a/1.wav b/1.wav\n")
    assert contradictions(blind, [("x", "x")]) == []


def test_all_utterances_without_a_speaker_are_counted(tmp_path: Path) -> None:
    text = "".join(f"1 s/x/{index:02d}.wav s/y/{index:02d}.wav\n" for index in range(8))
    with pytest.raises(CorpusError, match=r"^16 utterances .* s/x/00\.wav, .*s/y/01\.wav, …; expected each"):
        speaker_pairs(trials_of(tmp_path, text), {})
