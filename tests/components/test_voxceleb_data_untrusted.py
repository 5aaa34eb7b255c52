"""Downloads from servers that send something else, such as a page that asks to log in: nothing is lost."""

import shutil
import types
from pathlib import Path

import pytest

from file_server import CONTENT, FILE, Rig, Server, names
from voxceleb_data.origins import Credentials, open_origin
from voxceleb_data.transfer import Transfer
from voxsrc.errors import StorageError

pytestmark = pytest.mark.usefixtures("no_netrc")

PAGE = b"\n<!DOCTYPE html><title>Your key has expired, please register</title>"


@pytest.mark.parametrize("num_left", [0, 2_000_000])
@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("page", [PAGE, PAGE + b" " * len(CONTENT), b"busy, log in", b"x" * len(CONTENT)])
def test_a_page_in_place_of_the_file_costs_nothing_of_what_is_here(
    file_server: Server, tmp_path: Path, page: bytes, lengths: bool, num_left: int
) -> None:
    if num_left:
        (tmp_path / f"{FILE.name}.partial").write_bytes(CONTENT[:num_left])
    file_server.page, file_server.lengths = page, lengths
    with pytest.raises(StorageError, match=r"log in"):
        Rig(file_server.url, tmp_path).download()
    assert names(tmp_path) == ([f"{FILE.name}.partial"] if num_left else [])
    file_server.page, file_server.lengths = None, True
    assert Rig(file_server.url, tmp_path).download() == 1
    assert (tmp_path / FILE.name).read_bytes() == CONTENT
    assert file_server.downloads[-1].byte_range == (f"bytes={num_left}-" if num_left else None)


@pytest.mark.parametrize("lengths", [True, False])
def test_a_key_that_expires_in_mid_download_costs_nothing(
    file_server: Server, tmp_path: Path, lengths: bool
) -> None:
    file_server.cuts = [1_500_000]

    def the_key_expires(_: float) -> None:
        file_server.page, file_server.lengths = PAGE, lengths

    origin = open_origin(file_server.url, Credentials())
    with pytest.raises(StorageError, match="log in"):
        Transfer(origin, str(tmp_path), tmp_path, pause=the_key_expires).download([FILE])
    assert (tmp_path / f"{FILE.name}.partial").read_bytes() == CONTENT[:1_500_000]


def test_another_file_at_the_source_costs_nothing_of_what_is_here(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / FILE.name).write_bytes(b"x" * len(CONTENT))
    (tmp_path / "out").mkdir()
    partial = tmp_path / "out" / f"{FILE.name}.partial"
    partial.write_bytes(CONTENT[:1_000_000])
    with pytest.raises(StorageError, match=f"expected {FILE.md5}.*were removed"):
        Rig(str(tmp_path / "own"), tmp_path / "out").download()
    assert names(tmp_path / "out") == [partial.name]
    assert partial.read_bytes() == CONTENT[:1_000_000]


def test_a_partial_file_longer_than_the_file_is_named(file_server: Server, tmp_path: Path) -> None:
    partial = tmp_path / f"{FILE.name}.partial"
    partial.write_bytes(CONTENT + b"more")
    with pytest.raises(
        StorageError, match=r"has 3,000,000 bytes, but 3,000,004 are here.*if it is wrong, delete .*partial"
    ):
        Rig(file_server.url, tmp_path).download()
    assert partial.read_bytes() == CONTENT + b"more"


def test_sizes_that_nobody_tells_do_not_stop_a_download_from_going_on(
    file_server: Server, tmp_path: Path
) -> None:
    file_server.lengths = file_server.ranges = False
    (tmp_path / f"{FILE.name}.partial").write_bytes(CONTENT[:1000])
    assert Rig(file_server.url, tmp_path).download() == 1
    (tmp_path / FILE.name).rename(tmp_path / f"{FILE.name}.partial")
    num_requests = len(file_server.downloads)
    assert Rig(file_server.url, tmp_path).download() == 1
    assert len(file_server.downloads) == num_requests
    assert (tmp_path / FILE.name).read_bytes() == CONTENT


def test_a_second_download_beside_a_partial_file_goes_on_too(file_server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{FILE.name}.partial").write_bytes(b"\0" * len(CONTENT))
    file_server.cuts = [1_000_000]

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Transfer(open_origin(file_server.url, Credentials()), str(tmp_path), tmp_path, pause=stop).download(
            [FILE]
        )
    file_server.page, file_server.lengths = PAGE, False
    with pytest.raises(StorageError, match="web page"):
        Rig(file_server.url, tmp_path).download()
    file_server.page, file_server.lengths = None, True
    assert names(tmp_path) == [f"{FILE.name}.partial", f"{FILE.name}.partial.anew"]
    Rig(file_server.url, tmp_path).download()
    assert file_server.downloads[-1].byte_range == "bytes=1000000-"
    assert names(tmp_path) == [FILE.name, f"{FILE.name}.md5"]
    assert (tmp_path / FILE.name).read_bytes() == CONTENT


def test_a_second_download_beside_a_partial_file_needs_room(
    file_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{FILE.name}.partial").write_bytes(b"\0" * len(CONTENT))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=len(CONTENT) - 1))
    with pytest.raises(StorageError, match=r"make room or delete vox_partaa\.partial or choose another"):
        Rig(file_server.url, tmp_path).download()
    assert names(tmp_path) == [f"{FILE.name}.partial"]


def test_a_wrong_file_does_not_take_the_place_of_a_longer_partial_one(
    file_server: Server, tmp_path: Path
) -> None:
    (tmp_path / FILE.name).write_bytes(PAGE)
    (tmp_path / f"{FILE.name}.partial").write_bytes(CONTENT[:1_234_567])
    assert Rig(file_server.url, tmp_path).download() == 1
    assert [request.byte_range for request in file_server.downloads] == ["bytes=1234567-"]
