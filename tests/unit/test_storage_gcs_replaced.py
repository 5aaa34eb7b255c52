"""Objects in a bucket that are replaced while they are read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gcs_requests import CONTENT, MEDIA
from gcs_server import GcsServer
from voxsrc import storage
from voxsrc.errors import StorageError
from voxsrc.storage import gcs_media

pytestmark = pytest.mark.usefixtures("hurry", "short_deadline")

Replacements = list[bytes]


@pytest.fixture
def replacements(bucket: str, gcs_server: GcsServer) -> Iterator[Replacements]:
    """Contents that `f` gets one after the other, each when a download of it was cut after 4 MB."""
    contents: Replacements = []
    attempt = gcs_media._Download.attempt

    def replaced_when_cut(self: gcs_media._Download) -> None:
        try:
            attempt(self)
        finally:
            if contents:
                storage.write_bytes(f"{bucket}/f", contents.pop(0))

    storage.write_bytes(f"{bucket}/f", CONTENT)
    gcs_server.fail("cut", path=MEDIA, after=4_000_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gcs_media._Download, "attempt", replaced_when_cut)
        yield contents


@pytest.mark.parametrize("smaller", [b"", b"small"])
def test_an_object_replaced_by_a_smaller_one_is_read_anew(
    bucket: str, replacements: Replacements, smaller: bytes, tmp_path: Path
) -> None:
    replacements.append(smaller)
    storage.download(f"{bucket}/f", str(tmp_path / "f"))
    assert (tmp_path / "f").read_bytes() == smaller


def test_an_object_that_shrinks_again_and_again_is_given_up(
    bucket: str, gcs_server: GcsServer, replacements: Replacements
) -> None:
    # Each time cut, replaced by a small one, found to be too small, and large again.
    replacements += [b"small", CONTENT] * 3
    gcs_server.fail("status", path=MEDIA, status=416)
    for _ in range(2):
        gcs_server.fail("cut", path=MEDIA, after=4_000_000)
        gcs_server.fail("status", path=MEDIA, status=416)
    with pytest.raises(StorageError, match=r"f: is now no longer than the \d+ bytes that were read, 3 times"):
        storage.read_bytes(f"{bucket}/f")
