import subprocess
import sys

import pytest

from voxsrc import storage
from voxsrc.errors import StorageError


@pytest.mark.parametrize(
    ("uri", "names", "joined"),
    [
        ("gs://b", ("x", "y.txt"), "gs://b/x/y.txt"),
        ("gs://b/x/", ("y",), "gs://b/x/y"),
        ("out", ("a b", "ü"), "out/a b/ü"),
        ("/", ("etc",), "/etc"),
        ("out", ("/etc/passwd",), "out/etc/passwd"),
        ("file:///tmp/a%20b", ("c",), "/tmp/a b/c"),
        ("~", ("x",), "~/x"),
    ],
)
def test_join(uri: str, names: tuple[str, ...], joined: str) -> None:
    assert storage.join(uri, *names) == joined


@pytest.mark.parametrize(
    ("uri", "name", "parent"),
    [
        ("gs://b/x/y.txt", "y.txt", "gs://b/x"),
        ("gs://b/x/", "x", "gs://b"),
        ("gs://b", "", "gs://b"),
        ("a/b", "b", "a"),
        ("b", "b", "."),
        ("/b", "b", "/"),
        ("/", "", "/"),
        ("file:///tmp/b", "b", "/tmp"),
    ],
)
def test_name_and_parent(uri: str, name: str, parent: str) -> None:
    assert (storage.name(uri), storage.parent(uri)) == (name, parent)


def test_is_remote() -> None:
    assert storage.is_remote("gs://b/k")
    assert not any(map(storage.is_remote, ["a/b", "/a", "file:///a", "a:b", "C:/x"]))


@pytest.mark.parametrize("uri", ["s3://b/k", "http://host/x", "hdfs://x"])
def test_unknown_scheme_names_the_known_ones(uri: str) -> None:
    for call in (storage.is_remote, storage.read_bytes, storage.open_binary, storage.parent):
        with pytest.raises(StorageError, match=r"unknown scheme.*gs://"):
            call(uri)


def test_empty_uri_bucketless_uri_and_file_uri_with_a_host() -> None:
    with pytest.raises(StorageError, match="empty"):
        storage.exists("")
    with pytest.raises(StorageError, match="no bucket name"):
        storage.parent("gs://")
    with pytest.raises(StorageError, match="host 'far'"):
        storage.exists("file://far/x")


def test_local_path_refuses_a_bucket() -> None:
    assert storage.local_path("file://localhost/a%20b") == "/a b"
    with pytest.raises(StorageError, match="local path"):
        storage.local_path("gs://b/k")


def test_google_is_not_imported_before_the_first_bucket() -> None:
    code = (
        "import sys, voxsrc.storage as s; s.exists('x'); "
        "print({m.split('.')[0] for m in sys.modules} & {'google', 'requests', 'urllib3', 'torch'})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
