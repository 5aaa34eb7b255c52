"""Feature sets for embedding: large batches for a GPU, no cache file without one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from feature_sets import make_feature_set
from voxsrc.embedding.embedder import Embedder
from voxsrc.embedding.opening import open_for_embedding
from voxsrc.errors import ConfigError, FeatureSetError, NotFoundError, StorageError
from voxsrc.feature_set import FeatureSet
from voxsrc.features import FbankSpec
from voxsrc.models.stored import StoredModel


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOXSRC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def set_uri(tmp_path: Path, cache: Path) -> str:
    make_feature_set(tmp_path / "set", [[60], [60], [80], [60], [80]])
    return str(tmp_path / "set")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU as far as opening a set goes."""
    monkeypatch.setattr("voxsrc.embedding.opening.chosen_device", lambda name: torch.device("cuda"))


def shapes_of_batches(model: StoredModel, features: FeatureSet) -> list[tuple[int, int]]:
    shapes: list[tuple[int, int]] = []
    hook = model.encoder.register_forward_pre_hook(
        lambda _, inputs: shapes.append((inputs[0].shape[0], inputs[0].shape[2]))
    )
    Embedder(model, batch_frames=60_000).embed_set(features)
    hook.remove()
    return shapes


def test_on_a_cpu_a_shard_at_a_time_without_a_cache_file(
    model: StoredModel, set_uri: str, cache: Path
) -> None:
    features = open_for_embedding(set_uri, "cpu", spec=FbankSpec())
    assert features.mode == "by_shard"
    assert shapes_of_batches(model, features) == [(1, 60), (1, 60), (1, 80), (1, 60), (1, 80)]
    assert not cache.exists()


@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_batches_reach_across_shards(model: StoredModel, set_uri: str) -> None:
    features = open_for_embedding(set_uri, "auto", spec=FbankSpec())
    assert features.mode == "mmap"
    assert shapes_of_batches(model, features) == [(3, 60), (2, 80)]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("error", [StorageError("0.1 GB free, set $VOXSRC_CACHE"), PermissionError("no")])
def test_a_disk_without_room_is_done_without(
    set_uri: str, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> np.ndarray:
        raise error

    monkeypatch.setattr(FeatureSet, "_mapped", full)
    assert open_for_embedding(set_uri, "cuda").mode == "by_shard"
    [record] = caplog.records
    assert record.getMessage().startswith(f"{error}; its utterances are embedded shard by shard")


@pytest.mark.usefixtures("gpu")
def test_what_is_wrong_with_the_set_itself_is_not_worked_around(
    set_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(FeatureSetError, match="hop_ms"):
        open_for_embedding(set_uri, "cuda", spec=FbankSpec(hop_ms=12.5))
    with pytest.raises(NotFoundError):
        open_for_embedding(str(tmp_path / "none"), "cuda")
    assert caplog.records == []


def test_a_device_that_nobody_has(set_uri: str) -> None:
    with pytest.raises(ConfigError, match="device is 'gpu'; expected auto, cpu, cuda or cuda:N"):
        open_for_embedding(set_uri, "gpu")
