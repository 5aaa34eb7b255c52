"""Official lists: fetched whole, told apart, and refused when they are not what is published."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from voxceleb_data import inspection, trials
from voxceleb_data.official import ARCHIVES, LISTS, Archive, OfficialFile, OfficialList
from voxsrc.errors import CorpusError

CONTENT = b"1 id1/a/1.wav id1/b/1.wav\n0 id1/a/1.wav id2/a/1.wav\n0 id1/b/1.wav id2/a/1.wav\n"
MD5 = hashlib.md5(CONTENT).hexdigest()
LIST = OfficialList("tiny", "veri.txt", "tiny-cleaned.txt", "trials", 3, 1, MD5, 2, note="Tiny, cleaned")

Fetch = Callable[[bytes, OfficialList], str]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    return folder


def fetch(base: Path, output: Path, item: OfficialList = LIST) -> str:
    reports: list[str] = []
    trials.fetch(item, str(output), base_urls=[str(base)], report=reports.append)
    return reports[0]


def test_a_list_is_kept_byte_for_byte_under_a_name_that_tells_its_version(base: Path, tmp_path: Path) -> None:
    (base / "veri.txt").write_bytes(CONTENT)
    report = fetch(base, tmp_path / "out")
    assert (tmp_path / "out" / "tiny-cleaned.txt").read_bytes() == CONTENT
    assert "Tiny, cleaned, 3 lines, MD5 as published" in report
    (base / "veri.txt").unlink()
    assert "there already" in fetch(base, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (CONTENT[: CONTENT.rindex(b"0")], r"2 lines, expected 3"),
        (CONTENT + CONTENT.splitlines(keepends=True)[0], r"4 lines, expected 3"),
        (CONTENT.replace(b"0 id1/a", b"1 id1/a"), r"2 target trials, expected 1"),
        (CONTENT.replace(b"0 id1/a", b"2 id1/a"), r"line 2 is '2 id1/a/1.wav id2/a/1.wav', expected `1\|0"),
        (b"<html>please log in</html>\n", r"line 1 is '<html>"),
        (CONTENT.replace(b"id2/a", b"id2/c"), rf"MD5 \w+, expected {MD5}"),
        (b"", r"0 lines, expected 3"),
    ],
)
def test_another_list_is_refused_and_nothing_is_written(
    base: Path, tmp_path: Path, content: bytes, problem: str
) -> None:
    (base / "veri.txt").write_bytes(content)
    with pytest.raises(CorpusError, match=problem):
        fetch(base, tmp_path / "out")
    assert not (tmp_path / "out" / "tiny-cleaned.txt").exists()


def test_an_unconfirmed_checksum_does_not_refuse_a_list_with_the_right_counts(
    base: Path, tmp_path: Path
) -> None:
    (base / "veri.txt").write_bytes(CONTENT)
    unconfirmed = dataclasses.replace(LIST, md5="0" * 32, md5_sources=1)
    assert "counts as published; its MD5" in fetch(base, tmp_path / "1", unconfirmed)
    unknown = dataclasses.replace(LIST, md5=None, md5_sources=0)
    assert "no checksum is published" in fetch(base, tmp_path / "2", unknown)


def test_the_second_place_is_asked_when_the_first_fails(base: Path, tmp_path: Path) -> None:
    (base / "veri.txt").write_bytes(CONTENT)
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "veri.txt").write_bytes(b"login\n")
    places = [str(tmp_path / "nothing"), str(wrong), str(base)]
    trials.fetch(LIST, str(tmp_path / "out"), base_urls=places, report=lambda _: None)
    assert (tmp_path / "out" / "tiny-cleaned.txt").read_bytes() == CONTENT
    with pytest.raises(CorpusError, match=r"nothing.*line 1 is 'login'.*--base-url"):
        trials.fetch(LIST, str(tmp_path / "other"), base_urls=places[:2], report=lambda _: None)


def test_an_utterance_list_is_checked_by_form_and_count() -> None:
    item = OfficialList("utterances", "train_list.txt", "x.txt", "utterances", 2)
    assert trials.problem_of(b"id1 id1/a/1.wav\nid2 id2/a/1.wav\n", item) is None
    assert trials.problem_of(b"id1 id1/a/1.wav\r\nid2 id2/a/1.wav\r\n", item) is None
    assert trials.problem_of(b"id1 id1/a/1.wav\nid2\n", item) == "line 2 is 'id2', expected `speaker path`"


def test_the_published_tables_are_consistent() -> None:
    files = [f for a in ARCHIVES.values() for f in (*a.parts, *((a.joined,) if a.joined else ()))]
    assert len({file.name for file in files}) == len({file.md5 for file in files}) == len(files) == 16
    sums = [file.md5 for file in files] + [item.md5 for item in LISTS.values() if item.md5]
    assert all(len(md5) == 32 and set(md5) <= set("0123456789abcdef") for md5 in sums)
    assert {name: len(a.parts) for name, a in ARCHIVES.items()} == {
        "vox1-dev": 4,
        "vox1-test": 1,
        "vox2-dev": 8,
        "vox2-test": 1,
    }
    for archive in ARCHIVES.values():
        assert [file.name for file in archive.parts] == sorted(file.name for file in archive.parts)
    assert {name: item.num_lines for name, item in LISTS.items() if item.kind == "trials"} == {
        "vox1-O": 37_611,
        "vox1-O-original": 37_720,
        "vox1-E": 579_818,
        "vox1-E-original": 581_480,
        "vox1-H": 550_894,
        "vox1-H-original": 552_536,
    }
    for name, item in LISTS.items():
        assert ("original" in item.output_name) == name.endswith("-original")
        assert (item.md5 is None) == (item.md5_sources == 0)


def tiny_archive() -> tuple[Archive, dict[str, bytes]]:
    contents = {"tiny_partaa": b"first", "tiny_partab": b"second", "tiny.zip": b"firstsecond"}
    files = {name: OfficialFile(name, hashlib.md5(data).hexdigest()) for name, data in contents.items()}
    parts = (files["tiny_partaa"], files["tiny_partab"])
    return Archive("tiny", parts, files["tiny.zip"], speakers=1, utterances=1), contents


@pytest.fixture
def contents(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    archive, contents = tiny_archive()
    monkeypatch.setattr(inspection, "ARCHIVES", {"tiny": archive})
    monkeypatch.setattr(inspection, "LISTS", {"tiny": LIST})
    return contents


def states(folder: Path, *archives: str) -> dict[str, str]:
    return {finding.name: finding.state for finding in inspection.verify(str(folder), archives)}


def test_verify_names_what_is_missing_and_what_is_damaged(tmp_path: Path, contents: dict[str, bytes]) -> None:
    with pytest.raises(CorpusError, match="no official file of VoxCeleb"):
        states(tmp_path)
    assert states(tmp_path, "tiny") == {"tiny_partaa": "missing", "tiny_partab": "missing"}
    (tmp_path / "tiny_partaa").write_bytes(contents["tiny_partaa"])
    assert states(tmp_path) == {"tiny_partaa": "ok", "tiny_partab": "missing"}
    (tmp_path / "tiny_partab").write_bytes(b"secund")
    (tmp_path / "tiny_partab.md5").write_text("recorded")
    (tmp_path / "tiny-cleaned.txt").write_bytes(CONTENT)
    assert states(tmp_path) == {"tiny_partaa": "ok", "tiny_partab": "damaged", "tiny-cleaned.txt": "ok"}
    # So that `download` does not trust the record.
    assert not (tmp_path / "tiny_partab.md5").exists()
    (tmp_path / "tiny-cleaned.txt").write_bytes(CONTENT[1:])
    assert states(tmp_path)["tiny-cleaned.txt"] == "damaged"


def test_verify_takes_the_joined_zip_for_its_parts(tmp_path: Path, contents: dict[str, bytes]) -> None:
    (tmp_path / "tiny.zip").write_bytes(contents["tiny.zip"])
    assert states(tmp_path) == {"tiny.zip": "ok"}
    (tmp_path / "tiny_partab").write_bytes(b"half")
    assert states(tmp_path) == {"tiny.zip": "ok", "tiny_partab": "damaged"}


def test_verify_tells_of_an_unfinished_download(tmp_path: Path, contents: dict[str, bytes]) -> None:
    (tmp_path / "tiny_partaa.partial").write_bytes(b"fi")
    found = {finding.name: finding for finding in inspection.verify(str(tmp_path))}
    assert found["tiny_partaa"].state == "missing"
    assert "tiny_partaa.partial is there" in found["tiny_partaa"].detail
