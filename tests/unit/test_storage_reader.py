import io
import random
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcs_server import GcsServer
from voxsrc import storage
from voxsrc.errors import NotFoundError, StorageError
from voxsrc.storage import gcs_connection, reader
from voxsrc.storage.backend import ObjectInfo

MEDIA = "/download/"
CONTENT = random.Random(3).randbytes(5_000_000)


@pytest.fixture(autouse=True, scope="module")
def hurry() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gcs_connection, "FIRST_BACKOFF_S", 0.001)
        yield


def zip_bytes() -> tuple[bytes, dict[str, bytes]]:
    members = {f"spk{n}/ü {n}.bin": CONTENT[n * 1000 : n * 1000 + n * 9973] for n in range(40)}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return archive.getvalue(), members


def split(folder: str, content: bytes, *cuts: int) -> list[str]:
    """Writes `content` in parts named as VoxCeleb's; returns their URIs."""
    bounds = [0, *cuts, len(content)]
    uris = []
    for number, (first, last) in enumerate(pairwise(bounds)):
        uris.append(storage.join(folder, f"archive_parta{chr(ord('a') + number)}"))
        storage.write_bytes(uris[-1], content[first:last])
    return uris


@pytest.fixture(params=["local", "gs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else str(request.getfixturevalue("bucket"))


def test_split_zip_is_read_in_place(folder: str) -> None:
    content, members = zip_bytes()
    with (
        storage.open_binary(split(folder, content, 100_000, 100_001, 3_000_000), read_ahead=1 << 20) as file,
        zipfile.ZipFile(file) as archive,
    ):
        assert archive.namelist() == list(members)
        for name in random.Random(0).sample(list(members), len(members)):
            assert archive.read(name) == members[name]


@pytest.mark.parametrize("mode", ["r:gz", "r|gz", "r:*"])
def test_split_tar_is_read(folder: str, mode: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for number in range(20):
            info = tarfile.TarInfo(f"spk/{number}")
            info.size = 50_000 + number
            archive.addfile(info, io.BytesIO(CONTENT[: info.size]))
    parts = split(folder, packed.getvalue(), 12_345, 700_000)
    with storage.open_binary(parts) as file, tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        sizes = []
        for info in archive:
            member = archive.extractfile(info)
            assert member is not None
            data = member.read()
            assert data == CONTENT[: info.size]
            sizes.append(len(data))
    assert sizes == [50_000 + number for number in range(20)]


@settings(max_examples=60)
@given(
    cuts=st.lists(st.integers(0, 2000), max_size=4),
    read_ahead=st.integers(8, 700),
    steps=st.lists(st.tuples(st.integers(0, 2100), st.integers(-1, 900)), max_size=12),
    window=st.integers(1, 300),
)
def test_reads_as_one_file(
    cuts: list[int], read_ahead: int, window: int, steps: list[tuple[int, int]]
) -> None:
    content = CONTENT[:2000]
    bounds = [0, *sorted(cuts), len(content)]
    pieces = {f"gs://b/{n}": content[a:b] for n, (a, b) in enumerate(pairwise(bounds))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "backend_for", lambda uri: _Pieces(pieces))
        patch.setattr(reader, "FIRST_WINDOW_BYTES", window)
        patch.setattr(reader, "_BUFFER_BYTES", 64)
        with storage.open_binary(list(pieces), read_ahead=read_ahead) as file:
            expected = io.BytesIO(content)
            for position, size in steps:
                assert file.seek(position) == expected.seek(position)
                assert file.read(size) == expected.read(size)
                assert file.read(size // 2) == expected.read(size // 2)
                assert file.tell() == expected.tell()
            assert file.seek(-7, io.SEEK_END) == 1993
            assert file.read() == content[-7:]


class _Pieces:
    """Objects in memory, of which only what the reader asks for is there."""

    def __init__(self, pieces: dict[str, bytes]) -> None:
        self.pieces = pieces

    def stat(self, uri: str) -> ObjectInfo:
        return ObjectInfo(uri, len(self.pieces[uri]), 1, None)

    def read_range(self, uri: str, start: int, length: int, *, generation: int | None = None) -> bytes:
        assert length > 0
        assert generation == 1
        return self.pieces[uri][start : start + length]


def test_sequential_reading_makes_few_requests(bucket: str, gcs_server: GcsServer) -> None:
    storage.write_bytes(f"{bucket}/f", CONTENT)
    gcs_server.clear()
    with storage.open_binary(f"{bucket}/f", read_ahead=1 << 20) as file:
        pieces = list(iter(lambda: file.read(10_007), b""))
    assert b"".join(pieces) == CONTENT
    assert len(gcs_server.seen("GET", MEDIA)) <= 7  # 0.25 MiB, then 1 MiB each


def test_small_seeks_make_no_request_and_jumps_read_little(bucket: str, gcs_server: GcsServer) -> None:
    storage.write_bytes(f"{bucket}/f", CONTENT)
    with storage.open_binary(f"{bucket}/f") as file:
        file.seek(1_000_000)
        file.read(10)
        gcs_server.clear()
        for position in (1_200_000, 1_000_005, 1_100_000):
            file.seek(position)
            assert file.read(100) == CONTENT[position : position + 100]
        assert gcs_server.requests == []
        for position in (4_000_000, 2_000_000, 3_000_000):
            file.seek(position)
            assert file.read(100) == CONTENT[position : position + 100]
        ranges = [seen.headers["Range"] for seen in gcs_server.seen("GET", MEDIA)]
    assert ranges == [f"bytes={p}-{p + (256 << 10) - 1}" for p in (4_000_000, 2_000_000, 3_000_000)]


def test_broken_blocks_are_read_again(bucket: str, gcs_server: GcsServer) -> None:
    storage.write_bytes(f"{bucket}/f", CONTENT)
    gcs_server.fail("cut", path=MEDIA, times=3, after=100_000)
    gcs_server.fail("status", path=MEDIA, times=3)
    with storage.open_binary(f"{bucket}/f", read_ahead=1 << 20) as file:
        assert file.read() == CONTENT
    assert gcs_server.pending_faults == 0


def test_a_file_replaced_while_it_is_read_raises(folder: str) -> None:
    parts = split(folder, CONTENT, 2_500_000)
    with storage.open_binary(parts, read_ahead=1 << 18) as file:
        file.read(1000)
        storage.write_bytes(parts[1], CONTENT[:2_500_000])
        file.seek(2_600_000)
        with pytest.raises(StorageError, match="changed while it was read"):
            file.read(1000)


def test_failure_of_the_background_read_arrives_at_the_reader(bucket: str, gcs_server: GcsServer) -> None:
    storage.write_bytes(f"{bucket}/f", CONTENT)
    with storage.open_binary(f"{bucket}/f", read_ahead=1 << 18) as file:
        file.read(200_000)
        storage.delete(f"{bucket}/f")
        with pytest.raises(NotFoundError, match="no such object"):
            file.read()


def test_missing_part_and_no_part(folder: str) -> None:
    first = split(folder, b"x")[0]
    with pytest.raises(NotFoundError, match="partab"):
        storage.open_binary([first, storage.join(folder, "partab")])
    with pytest.raises(StorageError, match="at least one"):
        storage.open_binary([])


def test_read_many_keeps_the_order(folder: str) -> None:
    uris = [storage.join(folder, f"{n}") for n in range(30)]
    for number, uri in enumerate(uris):
        storage.write_bytes(uri, b"%d" % number)
    order = random.Random(0).sample(range(30), 30)
    assert list(storage.read_many((uris[n] for n in order), max_workers=4)) == [b"%d" % n for n in order]
    with pytest.raises(NotFoundError, match="absent"):
        list(storage.read_many([uris[0], storage.join(folder, "absent")]))
    with pytest.raises(ValueError, match="max_workers"):
        next(storage.read_many(uris, max_workers=0))


def test_read_many_reads_in_parallel_but_not_ahead_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = 0
    lock = threading.Lock()
    together = threading.Barrier(3)

    class Slow:
        def read_bytes(self, uri: str) -> bytes:
            nonlocal begun
            with lock:
                begun += 1
            together.wait(timeout=300)  # passes only while three are read at once
            return uri.encode()

    monkeypatch.setattr(reader, "backend_for", lambda uri: Slow())
    taken = 0
    for content in storage.read_many((f"gs://b/{n}" for n in range(30)), max_workers=3):
        assert content == b"gs://b/%d" % taken
        taken += 1
        with lock:
            assert begun <= taken + 3
    assert taken == begun == 30
