"""What a tar may hold beside plain files: hard links, and other tars behind it."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest
import zstandard

from corpora import contents_of, listed, tar_bytes
from voxsrc.errors import CorpusError
from voxsrc.sources import match_all_files, match_utterances, open_source

COMPRESSED = {"tar": bytes, "tar.gz": gzip.compress, "tar.zst": zstandard.compress}
FIRST, SECOND = tar_bytes({"ann/1.wav": b"1"}), tar_bytes({"bob/2.wav": b"2"})
END = bytes(1_024)


def store(folder: Path, form: str, *parts: bytes) -> str:
    """A tar archive of parts, each compressed by itself."""
    path = folder / f"a.{form}"
    path.write_bytes(b"".join(COMPRESSED[form](part) for part in parts))
    return str(path)


@pytest.mark.parametrize("form", COMPRESSED)
@pytest.mark.parametrize("first", [FIRST, FIRST[:1_024] + END, FIRST + bytes(3 << 20)])
def test_joined_tars_are_refused(tmp_path: Path, form: str, first: bytes) -> None:
    with pytest.raises(CorpusError, match=rf"a\.{form}: more follows the end of the tar; .*name each as an"):
        open_source(store(tmp_path, form, first, SECOND)).scan()


@pytest.mark.parametrize("form", COMPRESSED)
@pytest.mark.parametrize("data", [FIRST[:1_024] + END[:512], FIRST[:1_024] + END, FIRST + bytes(3 << 20)])
def test_padding_behind_a_tar_is_nothing(tmp_path: Path, form: str, data: bytes) -> None:
    source = open_source(store(tmp_path, form, data))
    assert contents_of(source, match_all_files(source)) == {"ann/1.wav": b"1"}
    source.close()


def linked_tar() -> bytes:
    """Files, links to them, and links to nothing that may be read."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path, content in (("./ann/1.wav", b"first"), ("bob/2.wav", b"second"), ("bob/2.txt", b"text")):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for path, target in (
            ("bob/3.wav", "./ann/1.wav"), ("bob/4.flac", "bob/2.wav"), ("zoe/5.wav", "bob/3.wav"),
            ("zoe/gone.wav", "gone.wav"), ("zoe/text.wav", "bob/2.txt"), ("zoe/up.wav", "../../secret.wav"),
            ("../up.wav", "bob/2.wav"),
        ):  # fmt: skip
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.LNKTYPE, target
            archive.addfile(entry)
    return file.getvalue()


@pytest.mark.parametrize("form", COMPRESSED)
def test_hard_links_are_read_as_what_they_link_to(tmp_path: Path, form: str) -> None:
    source = open_source(store(tmp_path, form, linked_tar()))
    everything = match_all_files(source)
    assert contents_of(source, everything) == {
        "ann/1.wav": b"first", "bob/2.wav": b"second", "bob/3.wav": b"first", "bob/4.flac": b"second",
        "zoe/5.wav": b"first",
    }  # fmt: skip
    scan = source.scan()
    assert scan.skipped == {"not_a_file": 3, "not_audio": 1, "unsafe_path": 1}
    assert scan.unsafe_paths == ["../up.wav"]
    some = match_utterances(source, listed("zoe/5.wav", "bob/4.flac", "zoe/gone.wav"))
    assert contents_of(source, some) == {"zoe/5.wav": b"first", "bob/4.flac": b"second"}
    source.close()


def test_a_link_means_the_file_that_has_the_name_at_that_point(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for content in (b"old", b"new"):
            entry = tarfile.TarInfo("s/1.wav")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            link = tarfile.TarInfo(f"s/{content.decode()}.wav")
            link.type, link.linkname = tarfile.LNKTYPE, "s/1.wav"
            archive.addfile(link)
    source = open_source(store(tmp_path, "tar", file.getvalue()))
    assert contents_of(source, match_all_files(source)) == {
        "s/1.wav": b"new", "s/old.wav": b"old", "s/new.wav": b"new"
    }  # fmt: skip
    source.close()


def test_links_in_a_compressed_tar_do_not_begin_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(store(tmp_path, "tar.gz", linked_tar()))
    matching = match_all_files(source)
    opened: list[object] = []
    decompress = gzip.GzipFile

    def counted(**options: object) -> gzip.GzipFile:
        opened.append(options)
        return decompress(**options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(gzip, "GzipFile", counted)
    assert len(contents_of(source, matching)) == 5
    assert len(opened) == 1
    source.close()
