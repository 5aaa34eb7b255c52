"""Folders on a disk: what is looked into, followed, and passed over."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corpora import contents_of, listed, store_corpus, write_files
from voxsrc.corpus import Utterance
from voxsrc.errors import CorpusError, PermissionDeniedError
from voxsrc.sources import match_all_files, match_utterances, open_source

MEMBERS = {f"id{n % 3}/s {n % 2}/Zürich {n}.wav": bytes([n]) for n in range(24)}


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Path]]:
    """Folders that may not be looked into; a test may well run as the one user who may do anything."""
    refused: set[Path] = set()
    scandir: Callable[[Path], object] = os.scandir

    def guarded(path: Path) -> object:
        if refused & {Path(path), *Path(path).parents}:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    yield refused


def test_a_folder_is_looked_into_only_where_the_list_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = store_corpus(str(tmp_path), "folder", MEMBERS)
    looked_into: list[str] = []
    scandir: Callable[[Path], object] = os.scandir

    def spy(path: Path) -> object:
        looked_into.append(os.path.relpath(path, uri))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", spy)
    match_utterances(open_source(uri), listed(*(path for path in MEMBERS if path.startswith("id1/s 0/"))))
    assert set(looked_into) == {"id1/s 0"}


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    write_files(tmp_path / "elsewhere", {"s/1.wav": b"1", "2.wav": b"2"})
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "ann").symlink_to(tmp_path / "elsewhere/s")
    (corpus / "bob").mkdir()
    (corpus / "bob/2.wav").symlink_to(tmp_path / "elsewhere/2.wav")
    (corpus / "bob/broken.wav").symlink_to(tmp_path / "gone.wav")
    source = open_source(str(corpus))
    assert contents_of(source, match_all_files(source)) == {"ann/1.wav": b"1", "bob/2.wav": b"2"}
    matching = match_utterances(source, listed("ann/1.wav", "bob/broken.wav"))
    assert [utterance.utterance_id for utterance in matching.missing] == ["bob/broken.wav"]


def test_a_copy_in_a_hidden_folder_is_no_second_place(tmp_path: Path) -> None:
    for folder in ("dev", ".Trash-1"):
        (tmp_path / folder / "s").mkdir(parents=True)
        (tmp_path / folder / "s" / "1.wav").write_bytes(b"x")
    with contextlib.closing(open_source(str(tmp_path))) as source:
        assert source.find_prefixes(["s/1.wav"]) == ["dev/"]


def test_the_root_of_a_volume_can_be_the_audio(tmp_path: Path, refuse: set[Path]) -> None:
    """Each ext4 volume has a folder there that only root may read."""
    refuse.add(tmp_path / "lost+found")
    write_files(tmp_path, {**MEMBERS, "lost+found/#12.wav": b"0"})
    source = open_source(str(tmp_path))
    matching = match_all_files(source)
    assert contents_of(source, matching) == MEMBERS
    assert matching.notes == ["1 entries skipped: hidden"]
    assert contents_of(source, match_utterances(source, listed(*MEMBERS))) == MEMBERS


def test_a_list_of_paths_below_a_folder_of_a_volume(tmp_path: Path, refuse: set[Path]) -> None:
    refuse |= {tmp_path / "lost+found", tmp_path / "private", tmp_path / "half/open"}
    write_files(tmp_path, {f"wav/{path}": data for path, data in MEMBERS.items()})
    for folder in ("lost+found", "private", "half/open"):
        (tmp_path / folder).mkdir(parents=True)
    source = open_source(str(tmp_path))
    matching = match_utterances(source, listed(*MEMBERS))
    assert matching.prefix == "wav/"
    assert contents_of(source, matching) == MEMBERS


def test_what_is_not_found_may_be_in_a_folder_that_may_not_be_read(tmp_path: Path, refuse: set[Path]) -> None:
    refuse.add(tmp_path / "private")
    write_files(tmp_path, {"private/id0/s 0/Zürich 0.wav": b"", "wav/x/1.wav": b""})
    with pytest.raises(PermissionDeniedError, match=f"^{tmp_path}/private.*: cannot list: user "):
        match_utterances(open_source(str(tmp_path)), listed(*MEMBERS))


def test_folders_that_may_not_be_read_are_passed_over_and_counted(tmp_path: Path, refuse: set[Path]) -> None:
    refuse |= {tmp_path / "id1", tmp_path / "id2/s 1"}
    write_files(tmp_path, MEMBERS)
    matching = match_all_files(open_source(str(tmp_path)))
    left = [path for path in MEMBERS if path.startswith(("id0/", "id2/s 0/"))]
    assert sorted(u.utterance_id for u, _ in matching.pairs) == sorted(left)
    assert matching.notes == ["2 entries skipped: unreadable"]
    refuse.add(tmp_path)
    with pytest.raises(PermissionDeniedError, match=f"^{tmp_path}: cannot list: user "):
        match_all_files(open_source(str(tmp_path)))


def test_hidden_folders_are_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"ann/1.wav": b"1", ".git/objects/2.wav": b"2", "ann/.cache/x/3.wav": b"3"})
    looked_into: list[str] = []
    scandir: Callable[[Path], object] = os.scandir

    def spy(path: Path) -> object:
        looked_into.append(os.path.relpath(path, tmp_path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", spy)
    assert match_all_files(open_source(str(tmp_path))).notes == ["2 entries skipped: hidden"]
    assert looked_into == [".", "ann"]


def test_files_are_listed_in_bytewise_order_of_their_paths(tmp_path: Path) -> None:
    paths = ["a-b/1.wav", "a.b/1.wav", "a/1.wav", "a/b/1.wav", "a/b.wav", "a0/1.wav", "ä/1.wav", "B/1.wav"]
    write_files(tmp_path, dict.fromkeys(paths, b""))
    assert list(open_source(str(tmp_path)).scan().members) == sorted(paths, key=str.encode)


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write_files(tmp_path, {"corpus/ann/1.wav": b"1", "elsewhere/2.wav": b"2"})
    for name, target in (
        ("loop", "."), ("up", ".."), ("ann/itself", "../ann"), ("other", "ann"),
        ("bob", "../elsewhere"), ("zoe", "../elsewhere"),
    ):  # fmt: skip
        (corpus / name).symlink_to(target)
    assert list(open_source(str(corpus)).scan().members) == ["ann/1.wav", "bob/2.wav"]


def test_a_file_that_is_all_suffix_is_hidden(tmp_path: Path) -> None:
    write_files(tmp_path, {"ann/.wav": b"", "ann/.m4a": b"", "ann/1.wav": b"1"})
    source = open_source(str(tmp_path))
    matching = match_utterances(source, listed("ann/1.wav", "ann/.wav"))
    assert contents_of(source, matching) == {"ann/1.wav": b"1"}
    assert [utterance.utterance_id for utterance in matching.missing] == ["ann/.wav"]
    assert match_all_files(source).notes == ["2 entries skipped: hidden"]


@pytest.mark.parametrize("form", ["folder", "tar"])
@pytest.mark.parametrize("others", [["x/0.m4a"], ["./x/0.wav"], ["x/0.m4a", "./x/0.wav", "x//0.flac"]])
def test_two_utterances_may_not_have_one_file(tmp_path: Path, form: str, others: list[str]) -> None:
    uri = store_corpus(str(tmp_path), form, {"x/0.wav": b"0", "x/1.wav": b"1", "x/1.m4a": b"2"})
    with contextlib.closing(open_source(uri)) as source:
        with pytest.raises(CorpusError) as caught:
            match_utterances(source, listed("x/1.wav", "x/0.wav", *others, "x/1.m4a"))
        named = "; ".join(f"x/0.wav and {other} are both x/0.wav" for other in others)
        assert str(caught.value) == (
            f"{len(others)} listed utterances have the file of another one in {uri}: {named}. Of paths that "
            "differ in `./`, in their suffix or in the Unicode form of accents alone list one, or add the "
            "file that is missing"
        )
        assert len(match_utterances(source, listed("x/1.wav", "x/0.m4a", "x/1.m4a")).pairs) == 3
        names = [Utterance(path, "", "x") for path in ("x/0.wav", *others)]  # as in trials
        assert len(match_utterances(source, names).pairs) == 1 + len(others)
