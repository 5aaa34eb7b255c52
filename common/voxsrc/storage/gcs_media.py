"""The bytes of bucket objects: downloads and large uploads that go on from where they were cut.

The JSON API's media requests are made here directly: the client library's own downloads skip the checksum
after a resumption, and its uploads cannot resume from a partly accepted chunk.
"""

import base64
import json
from typing import Any, BinaryIO, NoReturn
from urllib.parse import quote

import google_crc32c
import requests  # type: ignore[import-untyped]
from google.api_core import exceptions as api

from voxsrc.errors import StorageError
from voxsrc.storage.gcs_connection import (
    Connection,
    GcsSettings,
    TransferBrokenError,
    api_error,
    connection,
    retried,
)
from voxsrc.storage.uri import split_bucket

PIECE_BYTES = 1 << 20
UPLOAD_CHUNK_BYTES = 16 << 20  # a multiple of 256 KiB, as the protocol wants
MAX_STARTS = 3
CONTENT_TYPE = "application/octet-stream"

# As stored: without this, objects stored with `Content-Encoding: gzip` are unpacked by the server.
_RAW = {"Accept-Encoding": "gzip"}


def crc32c_text(checksum: int) -> str:
    """Base64 of the big-endian value, as GCS writes it."""
    return base64.b64encode(checksum.to_bytes(4, "big")).decode("ascii")


def _get(here: Connection, uri: str, byte_range: str | None) -> requests.Response:
    """Starts a media request; raises the API's error for anything but 200 and 206."""
    bucket, key = split_bucket(uri)
    response: requests.Response = here.session.get(
        f"{here.endpoint}/download/storage/v1/b/{bucket}/o/{quote(key, safe='')}",
        params={"alt": "media"},
        headers={**_RAW, "Range": f"bytes={byte_range}"} if byte_range else _RAW,
        timeout=GcsSettings.from_env().timeout,
        stream=True,
    )
    if response.status_code not in (200, 206):
        with response:
            raise api_error(response)
    return response


def read_range(uri: str, start: int, length: int, generation: int | None) -> bytes:
    """Bytes [start, start + length) clipped at the end; StorageError if the object is not at `generation`."""
    damaged = 0

    def attempt() -> bytes:
        nonlocal damaged
        try:
            response = _get(connection(), uri, f"{start}-{start + length - 1}")
        except api.RequestRangeNotSatisfiable:
            return b""
        with response:
            found = _generation(response)
            if generation not in (None, found):
                raise StorageError(
                    f"{uri}: changed while it was read (generation {generation}, now {found}); start again"
                )
            body = bytes(response.raw.read(decode_content=False))
            if response.status_code == 200:  # the server has ignored the range
                return body[start : start + length]
            span, _, size = _header(response, "content-range").removeprefix("bytes ").partition("/")
            if span != f"{start}-{start + len(body) - 1}":
                raise TransferBrokenError(f"{uri}: got {len(body)} bytes for the range {span}")
            if len(body) == int(size) and crc32c_text(google_crc32c.value(body)) != _stored_crc32c(response):
                damaged += 1
                error = StorageError if damaged == MAX_STARTS else TransferBrokenError
                raise error(f"{uri}: what was read has another CRC32C than is stored; upload it anew")
            return body

    return retried(attempt, uri=uri, action="read") if length else b""


class _Download:
    """One object on its way into a seekable file; `attempt` goes on from where the last one stopped."""

    def __init__(self, uri: str, sink: BinaryIO) -> None:
        self.received = 0
        self._uri = uri
        self._sink = sink
        self._starts = 0
        self._restart()

    def _restart(self) -> None:
        self._sink.seek(0)
        self._sink.truncate()
        self._position = 0
        self._checksum = 0
        self.generation: int | None = None
        self.crc32c: str | None = None
        self._starts += 1

    @property
    def size(self) -> int:
        return self._position

    def attempt(self) -> None:
        try:
            response = _get(connection(), self._uri, f"{self._position}-" if self._position else None)
        except api.RequestRangeNotSatisfiable:
            self._fail(f"is now no longer than the {self._position} bytes that were read")
        with response:
            generation = _generation(response)
            if not self._position:
                self.generation, self.crc32c = generation, _stored_crc32c(response)
            elif generation != self.generation or response.status_code != 206:
                self._fail(f"is now at generation {generation}, was at {self.generation}")
            while piece := response.raw.read(PIECE_BYTES, decode_content=False):
                self._sink.write(piece)
                self._checksum = google_crc32c.extend(self._checksum, piece)
                self._position += len(piece)
                self.received += len(piece)
        if (found := crc32c_text(self._checksum)) != self.crc32c:
            self._fail(f"has CRC32C {found} after {self._position} bytes, expected {self.crc32c}")

    def _fail(self, what: str) -> NoReturn:
        """Starts again from the first byte, a few times."""
        if self._starts == MAX_STARTS:
            raise StorageError(
                f"{self._uri}: {what}, {MAX_STARTS} times in a row; check who writes it, and upload it anew"
            )
        self._restart()
        raise TransferBrokenError(f"{self._uri}: {what}; starting again")


def _generation(response: requests.Response) -> int:
    return int(_header(response, "x-goog-generation"))


def _stored_crc32c(response: requests.Response) -> str:
    """The checksum of the whole object, from `X-Goog-Hash: crc32c=…,md5=…`."""
    hashes = dict(part.strip().split("=", 1) for part in _header(response, "x-goog-hash").split(","))
    if "crc32c" not in hashes:
        raise StorageError(f"{response.url}: X-Goog-Hash holds {sorted(hashes)}; expected crc32c")
    return hashes["crc32c"]


def _header(response: requests.Response, name: str) -> str:
    if (value := response.headers.get(name)) is None:
        raise StorageError(
            f"{response.url}: no {name} header; expected Cloud Storage: is a proxy in between?"
        )
    return str(value)


def download_to(uri: str, sink: BinaryIO) -> tuple[int, int | None, str | None]:
    """Fills an empty seekable file with an object, verified. Returns (size, generation, crc32c)."""
    download = _Download(uri, sink)
    retried(download.attempt, uri=uri, action="read", received=lambda: download.received)
    return download.size, download.generation, download.crc32c


class _Upload:
    """A resumable upload session; `attempt` asks the server how far it has come, and goes on from there."""

    def __init__(
        self, uri: str, source: BinaryIO, size: int, resource: dict[str, Any], generation: int | None
    ):
        self.accepted = 0
        self._uri = uri
        self._source = source
        self._size = size
        self._resource = resource
        self._generation = generation
        self._starts = 0
        self._session_url: str | None = None

    def attempt(self) -> dict[str, Any]:
        here = connection()
        answer = None
        if self._session_url is None:
            self._session_url = self._begin(here)
        else:
            answer = self._put(here, b"", f"bytes */{self._size}")
        while answer is None or answer.status_code == 308:
            position = 0 if answer is None else _accepted_bytes(answer)
            self.accepted = max(self.accepted, position)
            self._source.seek(position)
            chunk = self._source.read(UPLOAD_CHUNK_BYTES)
            last = position + len(chunk) - 1
            if not chunk or last >= self._size:
                raise StorageError(
                    f"{self._uri}: the source was {self._size} bytes and has changed; run it again"
                )
            answer = self._put(here, chunk, f"bytes {position}-{last}/{self._size}")
        resource: dict[str, Any] = answer.json()
        return resource

    def _begin(self, here: Connection) -> str:
        bucket, key = split_bucket(self._uri)
        params: dict[str, Any] = {"uploadType": "resumable", "name": key}
        if self._generation is not None:
            params["ifGenerationMatch"] = self._generation
        answer = here.session.post(
            f"{here.endpoint}/upload/storage/v1/b/{bucket}/o",
            params=params,
            data=json.dumps({"name": key, **self._resource}),
            headers={
                "Content-Type": "application/json; charset=UTF-8",
                "X-Upload-Content-Type": CONTENT_TYPE,
                "X-Upload-Content-Length": str(self._size),
            },
            timeout=GcsSettings.from_env().timeout,
        )
        if answer.status_code not in (200, 201):
            raise api_error(answer)
        self._starts += 1
        return str(answer.headers["location"])

    def _put(self, here: Connection, chunk: bytes, content_range: str) -> requests.Response:
        answer: requests.Response = here.session.put(
            self._session_url,
            data=chunk,
            headers={"Content-Range": content_range, "Content-Type": CONTENT_TYPE},
            timeout=GcsSettings.from_env().timeout,
        )
        if answer.status_code in (404, 410) and self._starts < MAX_STARTS:
            self._session_url = None
            raise TransferBrokenError(f"{self._uri}: the upload session is gone; starting again")
        if answer.status_code not in (200, 201, 308):
            raise api_error(answer)
        return answer


def _accepted_bytes(answer: requests.Response) -> int:
    """The `Range: bytes=0-N` of a 308 means N + 1 bytes are kept; without it, none."""
    kept = answer.headers.get("range")
    return int(kept.rpartition("-")[2]) + 1 if kept else 0


def upload_resumable(
    uri: str, source: BinaryIO, size: int, resource: dict[str, Any], if_generation_match: int | None = None
) -> dict[str, Any]:
    """Sends a seekable source of `size` > 0 bytes; returns the object's resource.

    `resource` holds the metadata to set; with `crc32c` in it the server refuses other bytes.
    """
    upload = _Upload(uri, source, size, resource, if_generation_match)
    return retried(upload.attempt, uri=uri, action="write", received=lambda: upload.accepted)
