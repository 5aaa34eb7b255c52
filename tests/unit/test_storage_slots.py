"""What killed writers left in a folder that several users share, and links in a circle."""

import os
from pathlib import Path

import pytest

from voxsrc import storage
from voxsrc.errors import NotFoundError, PermissionDeniedError
from voxsrc.storage.backend import TEMP_PREFIX


@pytest.fixture
def other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before is another user's."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)


def test_a_slot_left_by_another_user_is_left_alone(tmp_path: Path, other_user: None) -> None:
    slot = tmp_path / f"{TEMP_PREFIX}0"
    slot.write_bytes(b"of a killed writer")
    storage.write_bytes(str(tmp_path / "f"), b"ours")
    assert slot.read_bytes() == b"of a killed writer"
    assert (tmp_path / "f").read_bytes() == b"ours"
    assert sorted(os.listdir(tmp_path)) == [slot.name, "f"]  # noqa: PTH208


@pytest.mark.parametrize("name", ["hard link", "symbolic link"])
def test_a_slot_that_is_a_link_does_its_target_no_harm(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"1")
    slot = tmp_path / f"{TEMP_PREFIX}0"
    slot.symlink_to(precious) if name == "symbolic link" else slot.hardlink_to(precious)
    storage.write_bytes(str(tmp_path / "f"), b"2")
    assert (precious.read_bytes(), (tmp_path / "f").read_bytes()) == (b"1", b"2")


def test_a_file_system_that_maps_users_gives_files_another_owner(tmp_path: Path, other_user: None) -> None:
    storage.write_bytes(str(tmp_path / "f"), b"ours")
    assert os.listdir(tmp_path) == ["f"]  # noqa: PTH208


def test_a_left_over_slot_does_not_hand_on_its_mode(tmp_path: Path) -> None:
    slot = tmp_path / f"{TEMP_PREFIX}0"
    slot.write_bytes(b"under umask 077")
    slot.chmod(0o600)
    before = os.umask(0o022)
    try:
        storage.write_bytes(str(tmp_path / "f"), b"ours")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644
    assert not slot.exists()


def test_what_cannot_be_removed_does_not_hide_why_the_write_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(PermissionDeniedError, match="f: cannot write: user "):
        storage.write_bytes(str(tmp_path / "f"), b"ours")


def test_links_in_a_circle_are_as_links_to_nothing(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "x/f"), b"1")
    (tmp_path / "x/a").symlink_to("b")
    (tmp_path / "x/b").symlink_to("a")
    assert [info.uri for info in storage.list_files(str(tmp_path))] == [str(tmp_path / "x/f")]
    assert not storage.exists(str(tmp_path / "x/a"))
    with pytest.raises(NotFoundError, match="x/a: cannot read: its links lead in a circle; mend them"):
        storage.read_bytes(str(tmp_path / "x/a"))
