"""Where a model is not: what the message says about where it may be instead."""

import shutil
from pathlib import Path

import pytest

from voxsrc import storage
from voxsrc.errors import NotFoundError, PermissionDeniedError
from voxsrc.models.stored import read_description


def test_the_output_of_a_training_for_its_model_folder(place: str) -> None:
    storage.write_bytes(f"{place}/run/model/model.yaml", b"format_version: 1\n")
    storage.write_bytes(f"{place}/run/checkpoints/latest.json", b"{}")
    with pytest.raises(NotFoundError) as caught:
        read_description(f"{place}/run")
    assert "run/model.yaml" in str(caught.value)
    assert f"did you mean {place}/run/model?" in str(caught.value)


def test_a_training_that_has_no_model_yet(place: str) -> None:
    storage.write_bytes(f"{place}/run/checkpoints/latest.json", b"{}")
    with pytest.raises(NotFoundError, match=r"not finished.*--export newest \(or best\)") as caught:
        read_description(f"{place}/run")
    assert f"{place}/run/exported" in str(caught.value)
    with pytest.raises(NotFoundError, match=r"not finished.*--export newest"):
        read_description(f"{place}/run/model")


def test_nothing_there_is_said_as_before(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)
    with pytest.raises(NotFoundError, match=r"model\.yaml: cannot read: it does not exist; check the path$"):
        read_description(str(tmp_path / "run"))


def test_who_may_not_look_around_is_told_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(uri: str) -> bool:
        raise PermissionDeniedError(f"{uri}: cannot read")

    monkeypatch.setattr(storage, "exists", refuse)
    with pytest.raises(NotFoundError, match=r"model\.yaml: cannot read: it does not exist; check the path$"):
        read_description(str(tmp_path))
