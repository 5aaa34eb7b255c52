"""`gs://` through the JSON API of Google Cloud Storage, or an emulator named by STORAGE_EMULATOR_HOST."""

import io
import os
import re
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO

import google_crc32c
from google.api_core import exceptions as api
from google.cloud.storage import Blob

from voxsrc.errors import NotFoundError, PreconditionFailedError, StorageError
from voxsrc.storage import gcs_media
from voxsrc.storage.backend import TEMP_PREFIX, Backend, Data, ObjectInfo
from voxsrc.storage.gcs_connection import GcsSettings, bucket_exists, connection, retried
from voxsrc.storage.gcs_media import CONTENT_TYPE, PIECE_BYTES, crc32c_text
from voxsrc.storage.local import open_file, replacing
from voxsrc.storage.uri import split_bucket

# Up to here one request carries metadata and content, which is also atomic in its precondition.
SIMPLE_UPLOAD_BYTES = 8 << 20

# A conditional write leaves its own mark, by which it knows itself when the answer was lost.
WRITE_ID = "voxsrc-write-id"

PAGE_OBJECTS = 1000  # the most that the service gives
_FIELDS = "name,size,generation,crc32c"


# The rule of Cloud Storage; the library would raise a bare ValueError for some of the rest.
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, key = split_bucket(uri)
    if not _BUCKET_NAME.fullmatch(bucket):
        raise StorageError(
            f"{uri}: {bucket!r} is no bucket name; expected 3 or more of a-z, 0-9, '-', '_' and '.'"
        )
    return bucket, key


def _object(uri: str) -> tuple[str, str]:
    bucket, key = _bucket_and_key(uri)
    if not key:
        raise StorageError(f"{uri}: names a bucket; expected an object, gs://{bucket}/key")
    return bucket, key


def _blob(uri: str) -> Blob:
    bucket, key = _object(uri)
    return connection().client.bucket(bucket).blob(key)


def _request() -> dict[str, Any]:
    """One request, not repeated by the library: `retried` does that."""
    return {"retry": None, "timeout": GcsSettings.from_env().timeout}


class GcsBackend:
    """Objects in buckets. The generation is the bucket's."""

    def exists(self, uri: str) -> bool:
        """Asks for the object's metadata, and after a miss, once per bucket, whether the bucket is there."""
        try:
            self.stat(uri)
        except NotFoundError:
            if not bucket_exists(split_bucket(uri)[0]):
                raise
            return False
        return True

    def stat(self, uri: str) -> ObjectInfo:
        """One metadata request."""
        return _info(uri, _metadata(uri))

    def list_files(self, prefix_uri: str, *, recursive: bool) -> Iterator[ObjectInfo]:
        """One request a page, for names, sizes, generations and checksums only."""
        bucket, key = _bucket_and_key(prefix_uri)
        folder = key if not key or key.endswith("/") else f"{key}/"
        root = prefix_uri.removesuffix("/")
        token: str | None = None
        while True:

            def page(token: str | None = token) -> tuple[list[Blob], str | None]:
                listing = connection().client.list_blobs(
                    bucket,
                    prefix=folder or None,
                    delimiter=None if recursive else "/",
                    fields=f"items({_FIELDS}),nextPageToken",
                    page_token=token,
                    page_size=PAGE_OBJECTS,
                    **_request(),
                )
                return list(next(listing.pages, ())), listing.next_page_token

            blobs, token = retried(page, uri=prefix_uri, action="list")
            for blob in blobs:
                below = blob.name[len(folder) :]
                # Consoles mark an empty folder by an object "folder/".
                if below and not below.endswith("/") and not below.rpartition("/")[2].startswith(TEMP_PREFIX):
                    yield _info(f"{root}/{below}", blob)
            if token is None:
                return

    def read_bytes(self, uri: str) -> bytes:
        """One request."""
        _object(uri)
        sink = io.BytesIO()
        gcs_media.download_to(uri, sink)
        return sink.getvalue()

    def read_range(self, uri: str, start: int, length: int, *, generation: int | None = None) -> bytes:
        """One request; verified only where the range is the whole object."""
        _object(uri)
        return gcs_media.read_range(uri, start, length, generation)

    def write_bytes(self, uri: str, data: Data, *, if_generation_match: int | None = None) -> ObjectInfo:
        """One request up to 8 MiB, a resumable upload above."""
        content = bytes(data)
        return _Write(uri, io.BytesIO(content), len(content), if_generation_match).run()

    def upload(self, local_path: str, uri: str) -> ObjectInfo:
        """Reads the file twice: for its checksum, then to send it."""
        with open_file(local_path) as source:
            return _Write(uri, source, os.fstat(source.fileno()).st_size, None).run()

    def download(self, uri: str, local_path: str) -> ObjectInfo:
        """Streams into a temporary file beside the target."""
        _object(uri)
        with replacing(local_path) as (file, _):
            size, generation, crc32c = gcs_media.download_to(uri, file)
        return ObjectInfo(uri, size, generation, crc32c)

    def delete(self, uri: str, *, missing_ok: bool) -> None:
        """A miss after a try whose answer was lost counts as done."""
        blob = _blob(uri)
        tries = 0

        def attempt() -> None:
            nonlocal tries
            tries += 1
            try:
                blob.delete(**_request())
            except api.NotFound:
                if not (missing_ok or tries > 1) or not bucket_exists(split_bucket(uri)[0]):
                    raise

        retried(attempt, uri=uri, action="delete")


def _metadata(uri: str) -> Blob:
    blob = _blob(uri)
    retried(lambda: blob.reload(**_request()), uri=uri, action="read")
    return blob


class _Write:
    """One write of `size` bytes from a seekable source, with all its tries."""

    def __init__(self, uri: str, source: BinaryIO, size: int, if_generation_match: int | None) -> None:
        _object(uri)
        self._uri = uri
        self._source = source
        self._size = size
        self._generation = if_generation_match
        self._metadata = {} if if_generation_match is None else {WRITE_ID: uuid.uuid4().hex}
        self._tries = 0
        checksum = 0
        while piece := source.read(PIECE_BYTES):
            checksum = google_crc32c.extend(checksum, piece)
        self._crc32c = crc32c_text(checksum)

    def run(self) -> ObjectInfo:
        written = retried(self._attempt, uri=self._uri, action="write")
        if (written.size, written.crc32c) != (self._size, self._crc32c):
            raise StorageError(
                f"{self._uri}: the bucket holds {written.size} bytes with CRC32C {written.crc32c} after "
                f"writing {self._size} with {self._crc32c}; was the source changed meanwhile? Write it again"
            )
        return written

    def _attempt(self) -> ObjectInfo:
        self._tries += 1
        try:
            return self._simple() if self._size <= SIMPLE_UPLOAD_BYTES else self._resumable()
        except (api.PreconditionFailed, PreconditionFailedError):
            if (present := self._own_write()) is not None:
                return present
            if self._tries > 1:
                raise PreconditionFailedError(
                    f"{self._uri}: is not at the expected generation after {self._tries} tries of one write, "
                    "of which an earlier one may have been done and replaced since; read it again first"
                ) from None
            raise

    def _simple(self) -> ObjectInfo:
        blob = _blob(self._uri)
        blob.crc32c, blob.metadata = self._crc32c, self._metadata
        self._source.seek(0)
        blob.upload_from_file(
            self._source,
            size=self._size,
            content_type=CONTENT_TYPE,
            checksum=None,
            if_generation_match=self._generation,
            **_request(),
        )
        return _info(self._uri, blob)

    def _resumable(self) -> ObjectInfo:
        resource = {"crc32c": self._crc32c, "metadata": self._metadata, "contentType": CONTENT_TYPE}
        answer = gcs_media.upload_resumable(self._uri, self._source, self._size, resource, self._generation)
        return ObjectInfo(self._uri, int(answer["size"]), int(answer["generation"]), answer["crc32c"])

    def _own_write(self) -> ObjectInfo | None:
        """The object, if it is what an earlier try, whose answer did not arrive, has put there."""
        try:
            blob = _metadata(self._uri)
        except NotFoundError:
            return None
        own = self._metadata and (blob.metadata or {}).get(WRITE_ID) == self._metadata[WRITE_ID]
        return _info(self._uri, blob) if own else None


def _info(uri: str, blob: Blob) -> ObjectInfo:
    return ObjectInfo(uri, int(blob.size), int(blob.generation), blob.crc32c)


BACKEND: Backend = GcsBackend()
