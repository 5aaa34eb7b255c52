"""Reaching Google Cloud Storage: settings, credentials, one client per process, repetition, messages."""

import http.client
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import google.auth
import requests  # type: ignore[import-untyped]
import urllib3
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage as google_storage

from voxsrc.errors import (
    ConfigError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    StorageError,
    VoxsrcError,
)

T = TypeVar("T")

FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 32.0
CONNECT_TIMEOUT_S = 10.0
POOL_CONNECTIONS = 64

# A new GKE pod reaches the metadata server only some seconds after its start.
METADATA_WAIT_S = 1.0
METADATA_WAIT_IN_CLUSTER_S = 20.0

_TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)
_TRANSIENT_TYPES = (
    ConnectionError,
    TimeoutError,
    http.client.HTTPException,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.PoolError,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.TimeoutError,
)

_RIGHTS = {
    "read": "storage.objects.get (roles/storage.objectViewer)",
    "list": "storage.objects.list (roles/storage.objectViewer)",
    "write": "storage.objects.create, and storage.objects.delete to replace (roles/storage.objectUser)",
    "delete": "storage.objects.delete (roles/storage.objectUser)",
}

_GET_CREDENTIALS = (
    "run `gcloud auth application-default login`, or in the cluster run the pod under a service account "
    "bound by Workload Identity (GOOGLE_APPLICATION_CREDENTIALS may name a credentials file)"
)

_log = logging.getLogger("voxsrc.storage")


class TransferBrokenError(StorageError):
    """The bytes that arrived are too few, damaged, or of another generation than those before: try again."""


@dataclass(frozen=True)
class GcsSettings:
    """How patient to be.

    Attributes:
        deadline_s: Seconds without any progress after which an operation fails.
        timeout_s: Seconds without a byte after which a connection counts as stalled.
    """

    deadline_s: float = 600.0
    timeout_s: float = 60.0

    @classmethod
    def from_env(cls) -> "GcsSettings":
        """Reads VOXSRC_STORAGE_DEADLINE_S and VOXSRC_STORAGE_TIMEOUT_S; raises ConfigError."""
        return cls(
            _seconds_from_env("VOXSRC_STORAGE_DEADLINE_S", cls.deadline_s),
            _seconds_from_env("VOXSRC_STORAGE_TIMEOUT_S", cls.timeout_s),
        )

    @property
    def timeout(self) -> tuple[float, float]:
        """(connect, read) timeouts in seconds."""
        return (min(CONNECT_TIMEOUT_S, self.timeout_s), self.timeout_s)


def _seconds_from_env(variable: str, default: float) -> float:
    text = os.environ.get(variable)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(
            f"environment variable {variable} is {text!r}; expected a positive number of seconds"
        )
    return seconds


@dataclass(frozen=True)
class Connection:
    """A client for lists and metadata, and its session for media: both thread-safe.

    Attributes:
        endpoint: Base URL of the JSON API, without a final slash.
        known_buckets: Buckets that were seen to exist.
    """

    client: google_storage.Client
    session: AuthorizedSession
    endpoint: str
    known_buckets: set[str] = field(default_factory=set)


_connections: dict[tuple[int, str | None], Connection] = {}
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it at the fork


os.register_at_fork(after_in_child=_renew_lock)


def connection() -> Connection:
    """The connection of this process, made on first use.

    Connections of a parent process are kept but never used: their sockets belong to the parent.

    Raises:
        PermissionDeniedError: There are no credentials.
    """
    emulator = os.environ.get("STORAGE_EMULATOR_HOST") or None
    key = (os.getpid(), emulator)
    with _lock:
        if (found := _connections.get(key)) is None:
            found = _connections[key] = _connect(_credentials(emulator))
    return found


def _connect(credentials: Any) -> Connection:
    # Else the library asks for each bucket's metadata in background threads, for traces that nobody reads.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
    adapter = requests.adapters.HTTPAdapter(pool_connections=POOL_CONNECTIONS, pool_maxsize=POOL_CONNECTIONS)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    client = google_storage.Client(project=None, credentials=credentials, _http=session)
    return Connection(client, session, client.api_endpoint.rstrip("/"))


def _credentials(emulator: str | None) -> Any:
    if emulator:
        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    if not _credentials_in_sight():
        raise PermissionDeniedError(
            f"no Google Cloud credentials: neither a file nor a metadata server was found; {_GET_CREDENTIALS}"
        )
    try:
        return google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_write"])[0]
    except auth.GoogleAuthError as error:
        raise PermissionDeniedError(
            f"no usable Google Cloud credentials: {error}; {_GET_CREDENTIALS}"
        ) from error


def _credentials_in_sight() -> bool:
    """Looks for credentials at once, where google.auth would probe for a metadata server again and again."""
    folder = os.environ.get("CLOUDSDK_CONFIG") or "~/.config/gcloud"
    file = Path(folder).expanduser() / "application_default_credentials.json"
    if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or file.is_file():
        return True
    if os.environ.get("NO_GCE_CHECK", "").lower() == "true":
        return False
    host, _, port = (os.environ.get("GCE_METADATA_HOST") or "169.254.169.254").partition(":")
    in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ
    deadline = time.monotonic() + (METADATA_WAIT_IN_CLUSTER_S if in_cluster else 0)
    while True:
        try:
            socket.create_connection((host, int(port or 80)), timeout=METADATA_WAIT_S).close()
            return True
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(FIRST_BACKOFF_S)


def api_error(response: requests.Response) -> Exception:
    """The API's error for a response that is not a success."""
    return api.from_http_response(response)  # type: ignore[no-untyped-call, no-any-return]


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, api.GoogleAPICallError):
        return error.code in _TRANSIENT_STATUS
    if isinstance(error, auth.GoogleAuthError):
        return isinstance(error, auth.TransportError) or error.retryable
    return isinstance(error, (TransferBrokenError, *_TRANSIENT_TYPES))


def retried(attempt: Callable[[], T], *, uri: str, action: str, received: Callable[[], int] = lambda: 0) -> T:
    """Calls `attempt` until it succeeds, with exponential back-off and full jitter between failures.

    Args:
        attempt: One try; it must be safe to repeat.
        uri: For messages.
        action: "read", "list", "write" or "delete".
        received: Bytes moved so far, over all tries; when it grows, deadline and back-off start again.

    Raises:
        StorageError: The failure is not transient, or nothing has moved until the deadline.
    """
    deadline_s = GcsSettings.from_env().deadline_s
    began, mark, backoff_s = time.monotonic(), received(), FIRST_BACKOFF_S
    while True:
        try:
            return attempt()
        except Exception as error:
            if not is_transient(error):
                raise translated(error, uri, action) from error
            if received() > mark:
                began, mark, backoff_s = time.monotonic(), received(), FIRST_BACKOFF_S
            pause_s = random.uniform(0, backoff_s)  # noqa: S311 - jitter
            if time.monotonic() + pause_s - began > deadline_s:
                raise StorageError(
                    f"{uri}: cannot {action}: nothing has moved for {deadline_s:g} s; the last failure was: "
                    f"{_one_line(error)}; run it again, or raise VOXSRC_STORAGE_DEADLINE_S"
                ) from error
            _log.warning("%s: %s failed, next try in %.1f s: %s", uri, action, pause_s, _one_line(error))
        time.sleep(pause_s)
        backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def translated(error: Exception, uri: str, action: str) -> Exception:
    """The StorageError for a failure of the client; anything that is not one comes back as it is."""
    if isinstance(error, VoxsrcError):
        return error
    if isinstance(error, api.NotFound):
        return _not_found(uri, _one_line(error))
    if isinstance(error, api.PreconditionFailed):
        return PreconditionFailedError(
            f"{uri}: is not at the expected generation: somebody else wrote it first; "
            "read it again and decide anew"
        )
    if isinstance(error, (api.Unauthorized, auth.GoogleAuthError)):
        return PermissionDeniedError(
            f"{uri}: cannot {action}: credentials refused ({_one_line(error)}); {_GET_CREDENTIALS}"
        )
    if isinstance(error, api.Forbidden):
        return PermissionDeniedError(
            f"{uri}: cannot {action}: the account in use needs {_RIGHTS[action]} on the bucket "
            f"({_one_line(error)}); grant it with `gcloud storage buckets add-iam-policy-binding`"
        )
    if isinstance(
        error, (api.GoogleAPIError, requests.RequestException, urllib3.exceptions.HTTPError, OSError)
    ):
        return StorageError(f"{uri}: cannot {action}: {_one_line(error)}")
    return error


def _not_found(uri: str, found: str) -> NotFoundError:
    bucket = uri.split("/")[2]
    if "bucket does not exist" in found or not bucket_exists(bucket):
        return NotFoundError(
            f"gs://{bucket}: no such bucket (needed for {uri}); check the name, or create it with "
            f"`gcloud storage buckets create gs://{bucket} --location=REGION`"
        )
    return NotFoundError(f"{uri}: no such object in the bucket; check the name")


def bucket_exists(bucket: str) -> bool:
    """False only if the service says so: an account that may not list cannot know."""
    here = connection()
    if bucket not in here.known_buckets:
        pages = here.client.list_blobs(
            bucket, max_results=1, fields="items(name)", retry=None, timeout=GcsSettings.from_env().timeout
        )
        try:
            next(iter(pages), None)
        except api.NotFound:
            return False
        except Exception as error:
            if isinstance(error, api.Forbidden) or is_transient(error):
                return True
            raise
        here.known_buckets.add(bucket)
    return True
