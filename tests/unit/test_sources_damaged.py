import io
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from corpora import archive_bytes, contents_of, listed, store_corpus, tar_bytes, zip_bytes
from gcs_server import GcsServer
from voxsrc import storage
from voxsrc.errors import AudioError, CorpusError, NotFoundError, PermissionDeniedError, StorageError
from voxsrc.sources import match_utterances, open_source

# No source looks into the files, so these need not be audio.
CONTENT = random.Random(2).randbytes(50_000)
MEMBERS = {
    f"id{speaker}/s {session}/Zürich {number}.wav": CONTENT[: 997 * (speaker + 1) + 100 * number] + bytes(300)
    for speaker in range(3)
    for session in range(2)
    for number in range(4)
}


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.zst"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8])
def test_a_cut_tar_is_refused(place: str, form: str, fraction: float) -> None:
    content, name = archive_bytes(form, MEMBERS), f"corpus.{form}"
    uri = storage.join(place, name)
    storage.write_bytes(uri, content[: int(fraction * len(content))])
    with pytest.raises(CorpusError, match=rf"{name} is not a whole tar archive \(.+\); fetch it again$"):
        open_source(uri).scan()


def test_a_tar_cut_between_two_entries_is_refused(tmp_path: Path) -> None:
    content = tar_bytes(MEMBERS)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        boundary = archive.getmembers()[10].offset
    (tmp_path / "a.tar").write_bytes(content[:boundary])
    with pytest.raises(CorpusError, match=r"empty header at byte \d+, no end mark before it"):
        open_source(str(tmp_path / "a.tar")).scan()


def test_a_damaged_tar_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    content = bytearray(tar_bytes(MEMBERS))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        content[archive.getmembers()[10].offset + 3] ^= 0x40
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(CorpusError, match=r"bad checksum at byte \d+"):
        open_source(str(tmp_path / "a.tar")).scan()


def test_the_checksum_of_a_gz_stream_is_checked(tmp_path: Path) -> None:
    content = bytearray(tar_bytes(MEMBERS, "gz"))
    content[-6] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(CorpusError, match=r"is not a whole tar archive \(CRC check failed"):
        open_source(str(tmp_path / "a.tar.gz")).scan()


def test_a_cut_zip_is_refused(place: str) -> None:
    content = zip_bytes(MEMBERS)
    for length in (1_000, len(content) // 2, len(content) - 1):
        storage.write_bytes(storage.join(place, "a.zip"), content[:length])
        with pytest.raises(
            CorpusError, match=r"a\.zip is not a whole zip archive .*are all its parts there\?"
        ):
            open_source(storage.join(place, "a.zip")).scan()


@pytest.mark.parametrize("lost", ["corpus_partaa", "corpus_partac", "corpus_partae"])
def test_a_missing_part_is_named(place: str, lost: str) -> None:
    store_corpus(place, "zip-parts", MEMBERS)
    storage.delete(storage.join(place, lost))
    if lost == "corpus_partae":  # that it was the last, only the archive's end can tell
        with pytest.raises(CorpusError, match=r"not a whole zip archive \(.*; 4 part\(s\) read\)"):
            open_source(storage.join(place, "corpus_partab")).scan()
    else:
        with pytest.raises(CorpusError, match=f"part {lost} is missing; found "):
            open_source(storage.join(place, "corpus_partab"))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_zip_entry_is_rejected_alone(tmp_path: Path, method: int) -> None:
    members = {f"s/{n}.wav": CONTENT[n * 1_000 : n * 1_000 + 500] + bytes(500) for n in range(3)}
    content = bytearray(zip_bytes(members, method))
    content[content.index(CONTENT[1_100:1_110]) if method == zipfile.ZIP_STORED else len(content) // 2] ^= 1
    (tmp_path / "a.zip").write_bytes(content)
    source = open_source(str(tmp_path / "a.zip"))
    read = contents_of(source, match_utterances(source, listed(*members)))
    damaged = read.pop("s/1.wav")
    assert isinstance(damaged, AudioError)
    assert damaged.reason == "damaged"
    assert read == {path: content for path, content in members.items() if path != "s/1.wav"}


def test_a_zip_entry_does_not_inflate_beyond_its_declared_size(tmp_path: Path) -> None:
    content = bytearray(zip_bytes({"s/1.wav": bytes(1 << 20)}, zipfile.ZIP_DEFLATED))
    central = content.rindex(b"PK\x01\x02")
    content[central + 24 : central + 28] = (1_000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    source = open_source(str(tmp_path / "a.zip"))
    [read] = contents_of(source, match_utterances(source, listed("s/1.wav"))).values()
    assert isinstance(read, AudioError)
    assert read.detail == "zip entry does not match its CRC-32"


def damage(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.3:
        return content[: chance.randrange(len(content))]
    damaged = bytearray(content)
    for _ in range(chance.choice([1, 2, 8])):
        start = max(0, len(damaged) - 600) if chance.random() < 0.5 else 0
        damaged[chance.randrange(start, len(damaged))] = chance.choice([0, 0xFF, chance.randrange(256)])
    return bytes(damaged)


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.zst", "zip", "zip-deflated"])
def test_a_damaged_archive_is_read_or_refused_never_more(tmp_path: Path, form: str) -> None:
    members = dict(list(MEMBERS.items())[:5])
    content, name = archive_bytes(form, members), f"corpus.{form}"
    chance = random.Random(form)
    for _ in range(150):
        damaged = damage(content, chance)
        (tmp_path / name).write_bytes(damaged)
        try:
            source = open_source(str(tmp_path / name))
            found = source.scan().members
            read = list(source.read_all(found.values()))
            source.close()
        except CorpusError as error:
            assert str(error).startswith(str(tmp_path / name))
        else:
            assert len(read) == len(found)
            if len(damaged) < len(content):  # what was cut off was behind the last entry
                assert list(found) == list(members)


def test_what_is_no_archive_says_how_it_begins(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"this is no tar")
    (tmp_path / "b.tar").write_bytes(b"")
    with pytest.raises(
        CorpusError, match=r"a\.tar begins with 74 68 69 73 20 69 73 20; expected a folder, a"
    ):
        open_source(str(tmp_path / "a.tar"))
    with pytest.raises(CorpusError, match=r"b\.tar begins with nothing; expected a folder, a tar"):
        open_source(str(tmp_path / "b.tar"))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"gone: cannot read: it does not exist; check the path"):
        open_source(str(tmp_path / "gone"))
    with pytest.raises(StorageError, match=r"s3://bucket/a: unknown scheme s3://"):
        open_source("s3://bucket/a")


def test_nothing_there_in_a_bucket(bucket: str) -> None:
    with pytest.raises(NotFoundError, match=f"^{bucket}/typo.tar: no such object, and no objects below it"):
        open_source(f"{bucket}/typo.tar").scan()
    with pytest.raises(NotFoundError, match=r"^gs://no-such-bucket-here: no such bucket"):
        open_source("gs://no-such-bucket-here/audio")
    with pytest.raises(NotFoundError, match=r"^gs://no-such-bucket-here: no such bucket"):
        open_source("gs://no-such-bucket-here").scan()


def test_a_file_that_is_gone_since_planning_is_missing(place: str) -> None:
    source = open_source(store_corpus(place, "folder", MEMBERS))
    matching = match_utterances(source, listed(*MEMBERS))
    gone = "id1/s 0/Zürich 1.wav"
    storage.delete(storage.join(place, "corpus", gone))
    read = contents_of(source, matching)
    missing = read.pop(gone)
    assert isinstance(missing, AudioError)
    assert missing.reason == "missing"
    assert read == {path: content for path, content in MEMBERS.items() if path != gone}


def test_an_archive_that_is_gone_since_planning_is_an_error(tmp_path: Path) -> None:
    uri = store_corpus(str(tmp_path), "zip", MEMBERS)
    matching = match_utterances(open_source(uri), listed(*MEMBERS))
    Path(uri).write_bytes(Path(uri).read_bytes()[:5_000])
    source = open_source(uri)
    with pytest.raises(CorpusError, match=r"corpus\.zip has no zip entry at \d+ for id.*; was it replaced\?"):
        contents_of(source, matching)
    source.close()


@pytest.mark.parametrize("form", ["tar", "tar.gz"])
def test_a_tar_that_was_cut_since_planning_is_an_error(tmp_path: Path, form: str) -> None:
    uri = store_corpus(str(tmp_path), form, MEMBERS)
    matching = match_utterances(open_source(uri), listed(*MEMBERS))
    content = Path(uri).read_bytes()
    Path(uri).write_bytes(content[: len(content) // 3])
    source = open_source(uri)
    with pytest.raises(CorpusError, match=r"(ends within|is damaged before) id.*Zürich"):
        contents_of(source, matching)
    source.close()


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = store_corpus(str(tmp_path), "folder", MEMBERS)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        PermissionDeniedError, match=r"id0/s 0: cannot list: user \d+ may not; check its owner"
    ):
        match_utterances(open_source(uri), listed(*MEMBERS))


def test_a_bucket_folder_is_read_many_objects_ahead_and_survives_failures(
    gcs_server: GcsServer, bucket: str, hurry: None
) -> None:
    members = {f"s{n % 3}/{n:03d}.wav": CONTENT[n : n + 700] for n in range(80)}
    source = open_source(store_corpus(bucket, "folder", members))
    matching = match_utterances(source, listed(*members))
    gcs_server.fail("status", path="/download/", times=5)
    gcs_server.fail("cut", path="/download/", times=3, after=100)
    assert contents_of(source, matching) == members
    assert gcs_server.pending_faults == 0
