"""Sizes that a damaged or hostile archive declares, and files that are too large."""

import contextlib
import gzip
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from corpora import contents_of, listed, store_corpus, tar_bytes, zip_bytes
from voxsrc import storage
from voxsrc.errors import AudioError, CorpusError
from voxsrc.sources import match_utterances, open_source

# No source looks into the files, so these need not be audio.
CONTENT = random.Random(2).randbytes(3_000)


def forge_zip_sizes(content: bytes, stored: int, size: int) -> bytes:
    """The first entry of the directory with other sizes."""
    start = content.index(b"PK\x01\x02") + 20
    return content[:start] + struct.pack("<II", stored, size) + content[start + 8 :]


@pytest.mark.parametrize(
    ("stored", "size", "reason", "detail"),
    [
        (
            0xFFFF_FFFE,
            0xFFFF_FFFE,
            "too_large",
            "4,294,967,294 bytes; at most 1,073,741,824 are read: cut it",
        ),
        (700, 0xFFFF_FFFE, "too_large", "4,294,967,294 bytes"),
        (0xFFFF_FFFE, 700, "too_large", "4,294,967,294 bytes"),
        (1 << 30, 700, "damaged", "zip entry needs 1073741824 bytes from "),
        (699, 700, "damaged", "zip entry does not match its CRC-32"),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_entry_of_a_forged_size_is_rejected_alone(
    place: str, method: int, stored: int, size: int, reason: str, detail: str
) -> None:
    members = {f"s/{n}.wav": CONTENT[n : n + 700] for n in range(3)}
    storage.write_bytes(
        storage.join(place, "a.zip"), forge_zip_sizes(zip_bytes(members, method), stored, size)
    )
    with contextlib.closing(open_source(storage.join(place, "a.zip"))) as source:
        read = contents_of(source, match_utterances(source, listed(*members)))
    forged = read.pop("s/0.wav")
    assert isinstance(forged, AudioError)
    assert (forged.reason, forged.detail[: len(detail)]) == (reason, detail)
    assert read == {path: content for path, content in members.items() if path != "s/0.wav"}


def test_a_zip64_record_may_say_anything(tmp_path: Path) -> None:
    members = {"s/0.wav": b"zero", "s/1.wav": b"one"}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path, content in members.items():
            archive.writestr(path, content)
        archive.getinfo("s/1.wav").header_offset = (1 << 64) - 1
        archive.getinfo("s/1.wav").file_size = (1 << 64) - 1
    with contextlib.closing(open_source(str(tmp_path / "a.zip"))) as source:
        forged = source.find("s/1.wav")
        assert forged
        assert (forged.offset, forged.size) == ((1 << 63) - 1, (1 << 63) - 1)
        [result] = source.read_all([forged])
        assert isinstance(result, AudioError)
        with pytest.raises(CorpusError, match=r"a\.zip has no zip entry at \d+ for s/1\.wav"):
            list(source.read_all([replace(forged, size=3)]))


@pytest.mark.parametrize("form", ["tar.gz", "tar.zst", "folder"])
def test_a_file_beyond_the_limit_is_rejected_alone(
    place: str, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """A few megabytes of a compressed tar may hold what no memory does."""
    monkeypatch.setattr("voxsrc.sources.base.MOST_BYTES", 1_000)
    members = {"s/0.wav": CONTENT[:1_000], "s/1.wav": bytes(1_001), "s/2.wav": CONTENT[1_000:1_900]}
    with contextlib.closing(open_source(store_corpus(place, form, members))) as source:
        read = contents_of(source, match_utterances(source, listed(*members)))
    bomb = read.pop("s/1.wav")
    assert isinstance(bomb, AudioError)
    assert str(bomb) == "too_large: 1,001 bytes; at most 1,000 are read: cut it into parts"
    assert read == {path: content for path, content in members.items() if path != "s/1.wav"}


def with_size_field(content: bytes, field: bytes, kind: bytes | None = None) -> bytes:
    """A tar whose first header has another size, and perhaps type, and a checksum that agrees."""
    header = bytearray(content[:512])
    header[124:136] = field
    if kind:
        header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content[512:]


@pytest.mark.parametrize("compression", ["", "gz", "zst"])
@pytest.mark.parametrize(
    "field",
    [
        b"\x80" + b"\x7f" * 11,  # base-256, far beyond 64 bits
        b"\x80\0\0\0\x7f" + b"\xff" * 7,  # just within 63
        b"\xff" * 12,  # -1
        b"77777777777\0",
    ],
)
@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"K"])
def test_a_damaged_size_in_a_tar_is_refused(
    tmp_path: Path, compression: str, field: bytes, kind: bytes
) -> None:
    content = with_size_field(tar_bytes({f"s/{n}.wav": CONTENT[n:] for n in range(4)}), field, kind)
    compress: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": zstandard.compress}
    (tmp_path / "a.tar").write_bytes(compress.get(compression, bytes)(content))
    with pytest.raises(CorpusError, match=r"a\.tar is not a whole tar archive \(.+\); fetch it again$"):
        open_source(str(tmp_path / "a.tar")).scan()


def test_a_size_below_zero_in_a_pax_record_is_refused(tmp_path: Path) -> None:
    """Else the next entry would be looked for before this one, for ever."""
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("s/1.wav")
        entry.pax_headers = {"size": "-2048"}
        archive.addfile(entry)
    with pytest.raises(CorpusError, match=r"not a whole tar archive \(bad size -2048 of s/1\.wav\)"):
        open_source(str(tmp_path / "a.tar")).scan()


def test_headers_without_end_are_refused(tmp_path: Path) -> None:
    header = with_size_field(tar_bytes({"s/1.wav": b""}), b"00000000000\0", b"x")[:512]
    (tmp_path / "a.tar").write_bytes(header * 5_000)
    with pytest.raises(CorpusError, match=r"not a whole tar archive \("):
        open_source(str(tmp_path / "a.tar")).scan()
