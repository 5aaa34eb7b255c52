"""Writing to `gs://`: preconditions, answers that are lost, uploads that are cut."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gcs_requests import CONTENT, UPLOAD
from gcs_server import GcsServer
from shared_counter import increment
from voxsrc import storage
from voxsrc.errors import (
    NotFoundError,
    PreconditionFailedError,
    StorageError,
)
from voxsrc.storage import gcs_media

pytestmark = pytest.mark.usefixtures("hurry", "short_deadline")


def test_preconditions(bucket: str) -> None:
    uri = f"{bucket}/f"
    first = storage.write_bytes(uri, b"1", if_generation_match=0)
    with pytest.raises(PreconditionFailedError, match="somebody else"):
        storage.write_bytes(uri, b"2", if_generation_match=0)
    storage.write_bytes(uri, b"2", if_generation_match=first.generation)
    with pytest.raises(PreconditionFailedError):
        storage.write_bytes(uri, b"2", if_generation_match=first.generation)
    storage.delete(uri)
    with pytest.raises(PreconditionFailedError):
        storage.write_bytes(uri, b"3", if_generation_match=first.generation)
    assert not storage.exists(uri)


@pytest.mark.parametrize("expected_generation", [0, None])
def test_a_write_whose_answer_was_lost_is_recognised(
    bucket: str, gcs_server: GcsServer, expected_generation: int | None
) -> None:
    uri = f"{bucket}/f"
    gcs_server.fail("lose_answer", method="POST", path=UPLOAD)
    written = storage.write_bytes(uri, b"mine", if_generation_match=expected_generation)
    assert gcs_server.pending_faults == 0
    assert storage.stat(uri) == written
    gcs_server.fail("lose_answer", method="POST", path=UPLOAD)
    again = storage.write_bytes(uri, b"mine", if_generation_match=written.generation)
    assert storage.stat(uri) == again != written


def test_an_equal_write_of_somebody_else_is_not_taken_for_our_own(bucket: str, gcs_server: GcsServer) -> None:
    uri = f"{bucket}/lock"
    storage.write_bytes(uri, b"locked", if_generation_match=0)
    gcs_server.fail("status", method="POST", path=UPLOAD, times=1)
    with pytest.raises(PreconditionFailedError):
        storage.write_bytes(uri, b"locked", if_generation_match=0)


def test_a_write_that_was_done_unheard_and_replaced_is_told_apart(bucket: str, gcs_server: GcsServer) -> None:
    uri = f"{bucket}/f"
    first = storage.write_bytes(uri, b"1")
    pause = random.uniform

    def replace_meanwhile(low: float, high: float) -> float:
        storage.write_bytes(uri, b"somebody else's")
        return pause(low, high)

    gcs_server.fail("lose_answer", method="POST", path=UPLOAD)
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(PreconditionFailedError, match="may have been done"),
    ):
        patch.setattr(random, "uniform", replace_meanwhile)
        storage.write_bytes(uri, b"2", if_generation_match=first.generation)
    assert storage.read_bytes(uri) == b"somebody else's"


def test_counter_of_many_threads_loses_no_step_under_faults(bucket: str, gcs_server: GcsServer) -> None:
    uri = f"{bucket}/counter"
    storage.write_bytes(uri, b"0")

    gcs_server.fail("lose_answer", method="POST", path=UPLOAD, times=4)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(increment, [uri] * 4, [5] * 4))
    # A write may be done, its answer lost, and be replaced before its repetition: then it counts as failed.
    assert 20 <= int(storage.read_bytes(uri)) <= 20 + 4


def test_upload_of_a_large_file_survives_cuts(
    bucket: str, gcs_server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_media, "UPLOAD_CHUNK_BYTES", 1 << 20)
    (tmp_path / "f").write_bytes(CONTENT)
    gcs_server.clear()
    gcs_server.fail("status", method="POST", path=UPLOAD, times=1)
    gcs_server.fail("status", method="PUT", path=UPLOAD, times=2)
    gcs_server.fail("lose_answer", method="PUT", path=UPLOAD, times=5)
    info = storage.upload(str(tmp_path / "f"), f"{bucket}/f")
    assert info == storage.stat(f"{bucket}/f")
    assert storage.read_bytes(f"{bucket}/f") == CONTENT
    assert gcs_server.pending_faults == 0
    chunks = [r for r in gcs_server.seen("PUT", UPLOAD) if "*" not in r.headers["Content-Range"]]
    assert len(chunks) == 1 + 10  # the first was refused; whatever arrived is not sent again
    with pytest.raises(NotFoundError, match="no file here"):
        storage.upload(str(tmp_path / "no file here"), f"{bucket}/g")


def test_a_lost_upload_session_is_begun_again(bucket: str, gcs_server: GcsServer) -> None:
    gcs_server.fail("status", method="PUT", path=UPLOAD, status=410)
    storage.write_bytes(f"{bucket}/f", CONTENT)
    assert storage.read_bytes(f"{bucket}/f") == CONTENT
    gcs_server.fail("status", method="PUT", path=UPLOAD, times=100, status=410)
    with pytest.raises(StorageError, match="410"):
        storage.write_bytes(f"{bucket}/f", CONTENT)


def test_preconditions_of_large_writes(bucket: str, gcs_server: GcsServer) -> None:
    uri = f"{bucket}/f"
    gcs_server.fail("lose_answer", method="PUT", path=UPLOAD)
    written = storage.write_bytes(uri, CONTENT, if_generation_match=0)
    assert storage.stat(uri) == written
    assert "ifGenerationMatch=0" in gcs_server.seen("POST", UPLOAD)[0].path
    # The fake does not check the precondition of a resumable upload: its refusal is played.
    gcs_server.fail("status", method="POST", path=UPLOAD, status=412)
    with pytest.raises(PreconditionFailedError):
        storage.write_bytes(uri, CONTENT, if_generation_match=0)


class _ResumableServer:
    """Plays the protocol's server side for `_Upload`: keeps only a part of what comes, and loses answers."""

    def __init__(self, total: int) -> None:
        self.kept = bytearray()
        self.total = total
        self.rounds = 0

    def put(self, chunk: bytes, content_range: str) -> "_Answer":
        self.rounds += 1
        if chunk:
            span = content_range.removeprefix("bytes ").split("/")[0]
            assert int(span.split("-")[0]) == len(self.kept)
            self.kept += chunk[: len(chunk) * 2 // 3 + 1]
            if self.rounds % 3 == 0:
                raise ConnectionResetError("answer lost")
        else:
            assert content_range == f"bytes */{self.total}"
        if len(self.kept) < self.total:
            return _Answer(308, {"range": f"bytes=0-{len(self.kept) - 1}"} if self.kept else {})
        return _Answer(200, {})


class _Answer:
    def __init__(self, status_code: int, headers: dict[str, str]) -> None:
        self.status_code = status_code
        self.headers = headers

    def json(self) -> object:
        return json.loads('{"generation": "1"}')


def test_resumable_upload_goes_on_from_what_the_server_has_kept(
    gcs_server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = CONTENT[:100_003]
    (tmp_path / "f").write_bytes(content)
    peer = _ResumableServer(len(content))
    monkeypatch.setattr(gcs_media, "UPLOAD_CHUNK_BYTES", 10_000)
    monkeypatch.setattr(gcs_media._Upload, "_begin", lambda self, here: "session")
    monkeypatch.setattr(gcs_media._Upload, "_put", lambda self, here, chunk, span: peer.put(chunk, span))
    with (tmp_path / "f").open("rb") as source:
        assert gcs_media.upload_resumable("gs://b/f", source, len(content), {}) == {"generation": "1"}
    assert peer.kept == content


def test_upload_from_and_download_to_another_store(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 1000)
    storage.upload(str(tmp_path / "small"), f"{bucket}/small")
    storage.download(f"{bucket}/small", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"x" * 1000
