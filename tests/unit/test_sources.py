import gzip
import io
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from corpora import FORMS, contents_of, listed, store_corpus, write_files, zip_bytes
from voxsrc import storage
from voxsrc.errors import CorpusError
from voxsrc.sources import match_all_files, match_utterances, open_source

# No source looks into the files, so these need not be audio.
CONTENT = random.Random(2).randbytes(50_000)
MEMBERS = {
    f"id{speaker}/s {session}/Zürich {number}.wav": CONTENT[: 997 * (speaker + 1) + 100 * number] + bytes(300)
    for speaker in range(3)
    for session in range(2)
    for number in range(4)
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_corpus(place: str, form: str) -> None:
    source = open_source(store_corpus(place, form, MEMBERS))
    everything = match_all_files(source)
    assert [utterance for utterance, _ in everything.pairs] == listed(*sorted(MEMBERS))
    assert [member.size for _, member in everything.pairs] == [len(MEMBERS[p]) for p in sorted(MEMBERS)]
    assert (everything.prefix, everything.missing, everything.notes) == ("", [], [])
    assert contents_of(source, everything) == MEMBERS
    some = listed("id2/s 1/Zürich 3.wav", "id0/s 0/Zürich 0.wav", "id1/s 0/gone.wav")
    matching = match_utterances(source, some)
    assert [utterance for utterance, _ in matching.pairs] == some[:2]
    assert matching.missing == some[2:]
    assert contents_of(source, matching) == {u.utterance_id: MEMBERS[u.utterance_id] for u in some[:2]}
    source.close()


@pytest.mark.parametrize("form", FORMS)
def test_a_list_says_wav_where_the_files_are_m4a_below_a_folder(place: str, form: str) -> None:
    members = {f"dev/aac/{path[:-4]}.m4a": content for path, content in MEMBERS.items()}
    source = open_source(store_corpus(place, form, members))
    matching = match_utterances(source, listed(*MEMBERS))
    assert matching.prefix == "dev/aac/"
    assert matching.num_other_suffix == 24
    assert matching.notes == [
        "the list's paths are found below dev/aac/",
        "the list says .wav where the file is .m4a: 24 utterances matched by stem",
    ]
    assert contents_of(source, matching) == MEMBERS
    unlisted = match_all_files(source)
    assert unlisted.prefix == "dev/aac/"
    assert sorted(u.utterance_id for u, _ in unlisted.pairs) == sorted(f"{path[:-4]}.m4a" for path in MEMBERS)
    source.close()


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_the_listed_suffix_is_preferred(tmp_path: Path, form: str) -> None:
    members = {
        "s/1.flac": b"flac",
        "s/1.wav": b"wav",
        "s/1.mp3": b"mp3",
        "s/2.mp3": b"MP3",
        "s/2.m4a": b"m4a",
    }
    source = open_source(store_corpus(str(tmp_path), form, members))
    matching = match_utterances(source, listed("s/1.mp3", "s/2.wav", "s/1.ogg"))
    assert contents_of(source, matching) == {"s/1.mp3": b"mp3", "s/2.wav": b"m4a", "s/1.ogg": b"wav"}
    source.close()


@pytest.mark.parametrize("form", FORMS)
def test_a_corpus_without_sessions(tmp_path: Path, form: str) -> None:
    members = {"ann/1.wav": b"1", "ann/2.wav": b"2", "bob/1.wav": b"3"}
    source = open_source(store_corpus(str(tmp_path), form, members))
    assert [(u.speaker_id, u.session_id) for u, _ in match_all_files(source).pairs] == [
        ("ann", "ann"), ("ann", "ann"), ("bob", "bob"),
    ]  # fmt: skip
    source.close()


@pytest.mark.parametrize("form", FORMS)
def test_an_ambiguous_prefix_is_refused(tmp_path: Path, form: str) -> None:
    uri = store_corpus(str(tmp_path), form, {"dev/s/1.wav": b"1", "test/s/1.wav": b"2"})
    message = rf"^s/1\.wav is in {uri.replace('*', '.')} more than once, below dev/, test/; name one of these"
    with pytest.raises(CorpusError, match=message):
        match_utterances(open_source(uri), listed("s/1.wav"))


@pytest.mark.parametrize("form", FORMS)
def test_a_list_of_another_corpus_is_refused(place: str, form: str) -> None:
    uri = store_corpus(place, form, MEMBERS)
    with pytest.raises(CorpusError) as caught:
        match_utterances(open_source(uri), listed(*(f"other/{n}.wav" for n in range(99))))
    assert str(caught.value).startswith(
        f"none of the first 5 listed utterances is in {uri} (the first is other/0.wav); the list's paths"
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_in_the_list_is_missing(place: str, form: str) -> None:
    source = open_source(store_corpus(place, form, MEMBERS))
    matching = match_utterances(source, listed("id0/s 0/Zürich 0.wav", "id0/s 1", "id1"))
    assert [utterance.utterance_id for utterance in matching.missing] == ["id0/s 1", "id1"]
    source.close()


@pytest.mark.parametrize("form", FORMS)
def test_lists_that_find_has_written(place: str, form: str) -> None:
    source = open_source(store_corpus(place, form, MEMBERS))
    utterances = listed(*(f"./{path}" for path in MEMBERS))
    matching = match_utterances(source, utterances)
    assert (matching.missing, matching.notes) == ([], [])
    assert contents_of(source, matching) == {f"./{path}": content for path, content in MEMBERS.items()}
    source.close()


def test_what_is_not_audio_is_passed_over_and_counted(tmp_path: Path) -> None:
    members = {"s/1.wav": b"1", "s/notes.txt": b"", "s/._1.wav": b"macOS", "s/1": b"", "s/2.FLAC": b"2"}
    for form in FORMS:
        folder = tmp_path / form
        source = open_source(store_corpus(str(folder), form, members))
        matching = match_all_files(source)
        assert [member.path for _, member in matching.pairs] == ["s/1.wav", "s/2.FLAC"]
        assert matching.notes == ["1 entries skipped: hidden", "2 entries skipped: not_audio"]
        source.close()


def test_hidden_folders_are_no_speakers(tmp_path: Path) -> None:
    hidden = (
        ".git/objects/1.wav", ".Trash-1000/files/2.wav", "s/.ipynb_checkpoints/3.wav", "s/.4.wav",
        "__MACOSX/s/5.wav", "s/._6.wav",
    )  # fmt: skip
    members = {"s/1.wav": b"1", "t.x/2.wav": b"2", **dict.fromkeys(hidden, b"0")}
    for form in FORMS:
        source = open_source(store_corpus(str(tmp_path / form), form, members))
        matching = match_all_files(source)
        assert [utterance.speaker_id for utterance, _ in matching.pairs] == ["s", "t.x"]
        assert matching.notes == ["6 entries skipped: hidden"]
        source.close()


def test_the_point_before_a_tars_names_hides_nothing(tmp_path: Path) -> None:
    write_files(tmp_path / "folder", {"s/1.wav": b"1", "t/2.wav": b"2", ".git/3.wav": b"3"})
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "folder", ".")
        assert "./s/1.wav" in archive.getnames()
        entry = tarfile.TarInfo("././u/4.wav")
        archive.addfile(entry, io.BytesIO())
    scan = open_source(str(tmp_path / "a.tar")).scan()
    assert sorted(scan.members) == ["./u/4.wav", "s/1.wav", "t/2.wav"]
    assert scan.skipped == {"hidden": 1}


def add_entries(archive: tarfile.TarFile) -> None:
    for path in ("../outside.wav", "/etc/absolute.wav", "s/../../up.wav", "s/fine.wav"):
        entry = tarfile.TarInfo(path)
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"data"))
    for path, kind, target in (
        ("s/symbolic.wav", tarfile.SYMTYPE, "/etc/passwd"),
        ("s/hard.wav", tarfile.LNKTYPE, "../../secret"),
        ("s/device.wav", tarfile.CHRTYPE, ""),
        ("s/pipe.wav", tarfile.FIFOTYPE, ""),
        ("s/folder.wav", tarfile.DIRTYPE, ""),
    ):
        entry = tarfile.TarInfo(path)
        entry.type, entry.linkname = kind, target
        archive.addfile(entry)


@pytest.mark.parametrize("compressed", [False, True])
def test_hostile_tar_entries_are_never_read(tmp_path: Path, compressed: bool) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add_entries(archive)
    if compressed:
        (tmp_path / "a.tar").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    source = open_source(str(tmp_path / "a.tar"))
    scan = source.scan()
    assert list(scan.members) == ["s/fine.wav"]
    assert scan.unsafe_paths == ["../outside.wav", "/etc/absolute.wav", "s/../../up.wav"]
    assert scan.skipped == {"unsafe_path": 3, "not_a_file": 4}
    for path in ("../outside.wav", "/etc/absolute.wav", "s/symbolic.wav", "s/hard.wav", "s/folder.wav"):
        assert source.find(path) is None
    source.close()


def test_hostile_zip_entries_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes({"../a.wav": b"1", "/b.wav": b"2", "s/c.wav": b"3"}))
    scan = open_source(str(tmp_path / "a.zip")).scan()
    assert list(scan.members) == ["s/c.wav"]
    assert scan.unsafe_paths == ["../a.wav", "/b.wav"]


def test_a_sparse_tar_entry_is_not_read_as_plain(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("s/holes.wav")
    entry.type, entry.size = tarfile.GNUTYPE_SPARSE, 4
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(entry, io.BytesIO(b"data"))
    scan = open_source(str(tmp_path / "a.tar")).scan()
    assert (list(scan.members), scan.skipped) == ([], {"not_a_file": 1})


def test_of_equal_paths_the_last_counts(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for content in (b"old", b"between", b"new"):
            entry = tarfile.TarInfo("s/1.wav")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    source = open_source(str(tmp_path / "a.tar"))
    assert contents_of(source, match_utterances(source, listed("s/1.wav"))) == {"s/1.wav": b"new"}
    assert source.scan().skipped == {"duplicate_path": 2}
    source.close()


def test_names_that_are_no_utf_8_are_passed_over(tmp_path: Path) -> None:
    write_files(tmp_path / "folder", {"s/1.wav": b"1"})
    Path(os.fsdecode(os.fsencode(tmp_path / "folder/s") + b"/Andr\xe9.wav")).write_bytes(b"2")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "folder", "")
    for name in ("folder", "a.tar"):
        source = open_source(str(tmp_path / name))
        matching = match_all_files(source)
        assert [member.path for _, member in matching.pairs] == ["s/1.wav"]
        assert matching.notes == ["1 entries skipped: name_not_utf8"]
        source.close()


def test_any_part_or_a_star_names_them_all(place: str) -> None:
    store_corpus(place, "zip-parts", MEMBERS)
    storage.write_bytes(storage.join(place, "another_partaa"), b"of another archive")
    for name in ("corpus_partaa", "corpus_partad", "corpus_part*"):
        assert list(open_source(storage.join(place, name)).scan().members) == list(MEMBERS)
    with pytest.raises(CorpusError, match=r"has no files nothing_partaa, nothing_partab, …"):
        open_source(storage.join(place, "nothing_part*"))


def test_an_encrypted_zip_entry_is_passed_over(tmp_path: Path) -> None:
    content = bytearray(zip_bytes({"s/1.wav": b"plain", "s/2.wav": b"secret"}))
    central = content.rindex(b"PK\x01\x02")
    content[central + 8] |= 1  # the entry's flags in the directory
    (tmp_path / "a.zip").write_bytes(content)
    source = open_source(str(tmp_path / "a.zip"))
    assert match_all_files(source).notes == ["1 entries skipped: encrypted"]
    assert source.find("s/2.wav") is None


def test_a_zip_method_that_we_do_not_read_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes({"s/1.wav": b"1"}, zipfile.ZIP_LZMA))
    assert open_source(str(tmp_path / "a.zip")).scan().skipped == {"unknown_compression": 1}


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_whole_bucket_is_a_folder(bucket: str, ending: str) -> None:
    storage.write_bytes(f"{bucket}/ann/1.wav", b"1")
    storage.write_bytes(f"{bucket}/bob/2.wav", b"2")
    source = open_source(f"{bucket}{ending}")
    assert contents_of(source, match_all_files(source)) == {"ann/1.wav": b"1", "bob/2.wav": b"2"}


def test_a_folder_that_a_console_has_marked(bucket: str) -> None:
    storage.write_bytes(f"{bucket}/audio/", b"")
    storage.write_bytes(f"{bucket}/audio/ann/1.wav", b"1")
    source = open_source(f"{bucket}/audio/")
    assert contents_of(source, match_all_files(source)) == {"ann/1.wav": b"1"}


def test_a_compressed_tar_may_be_read_again_from_its_start(tmp_path: Path) -> None:
    source = open_source(store_corpus(str(tmp_path), "tar.gz", MEMBERS))
    members = list(source.scan().members.values())
    for _ in range(2):
        assert list(source.read_all(members)) == list(MEMBERS.values())
    source.close()
