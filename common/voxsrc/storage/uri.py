"""Names of files: a local path (`file://` accepted, `~` not expanded) or `gs://bucket/key`; text only."""

import posixpath
import re
from urllib.parse import unquote, urlsplit

from voxsrc.errors import StorageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

# Scheme → module with a `BACKEND`. Another store is one such module and one line here.
BACKEND_MODULES = {"file": "voxsrc.storage.local", "gs": "voxsrc.storage.gcs"}


def scheme(uri: str) -> str:
    """Returns a key of `BACKEND_MODULES`; raises StorageError for an unknown scheme or an empty URI."""
    if not uri:
        raise StorageError("empty path or URI; expected a local path or gs://bucket/key")
    match = _SCHEME.match(uri)
    if match is None:
        return "file"
    if (found := match[1].lower()) not in BACKEND_MODULES:
        known = ", ".join(f"{name}://" for name in BACKEND_MODULES)
        raise StorageError(f"{uri}: unknown scheme {found}://; expected a local path or one of {known}")
    return found


def is_remote(uri: str) -> bool:
    """True for a bucket's URI, False for a local path; raises StorageError for an unknown scheme."""
    return scheme(uri) != "file"


def local_path(uri: str) -> str:
    """The plain path of a local URI (`file:///a%20b` → `/a b`); raises StorageError for a remote one."""
    if is_remote(uri):
        raise StorageError(f"{uri}: expected a local path; download it first")
    if _SCHEME.match(uri) is None:
        return uri
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise StorageError(f"{uri}: names the host {parts.netloc!r}; expected file:///absolute/path")
    return unquote(uri.split("://", 1)[1].removeprefix(parts.netloc))


def split_bucket(uri: str) -> tuple[str, str]:
    """`gs://bucket/some/key` → ("bucket", "some/key"); the key is "" for the bucket itself."""
    bucket, _, key = uri.split("://", 1)[1].partition("/")
    if not bucket:
        raise StorageError(f"{uri}: has no bucket name; expected gs://bucket/key")
    return bucket, key


def join(uri: str, *names: str) -> str:
    """`uri` with `names` below it. An absolute name stays below: `join("out", "/a")` is `out/a`."""
    joined = uri if is_remote(uri) else local_path(uri)
    for below in names:
        joined = f"{joined}{below.lstrip('/')}" if joined.endswith("/") else f"{joined}/{below.lstrip('/')}"
    return joined


def name(uri: str) -> str:
    """The last component; "" for a bucket or the root folder."""
    path = split_bucket(uri)[1] if is_remote(uri) else local_path(uri)
    return posixpath.basename(path.rstrip("/"))


def parent(uri: str) -> str:
    """The folder that holds `uri`; a bucket and the root folder are their own parent."""
    if is_remote(uri):
        bucket, key = split_bucket(uri)
        folder = posixpath.dirname(key.rstrip("/"))
        root = f"{scheme(uri)}://{bucket}"
        return f"{root}/{folder}" if folder else root
    path = local_path(uri)
    return posixpath.dirname(path.rstrip("/") or "/") or "."
