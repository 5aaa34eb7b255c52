"""Fixtures of the unit tests."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from voxsrc.models.stored import StoredModel


@pytest.fixture
def model(tmp_path: Path) -> "StoredModel":
    """A tiny model, stored in the folder `model`."""
    from tiny_models import make_model

    return make_model(tmp_path / "model")


@pytest.fixture
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request to a bucket that gets nowhere is given up after 20 s."""
    monkeypatch.setenv("VOXSRC_STORAGE_DEADLINE_S", "20")
