"""Kept embeddings: nothing is computed twice, a killed run goes on, damage is redone."""

import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from feature_sets import make_feature_set
from forked import kill_at_operation
from tiny_models import make_model
from voxsrc import storage
from voxsrc.embedding import CROPS, EmbeddingMode
from voxsrc.embedding.cache import CacheKey, EmbeddingCache
from voxsrc.embedding.embedder import Embedder
from voxsrc.feature_set import FeatureSet
from voxsrc.models.stored import StoredModel, load_model

LENGTHS = [[60, 80, 77], [41, 80, 60, 60], [80, 60]]
NUM_UTTERANCES = 9


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    make_feature_set(tmp_path / "set", LENGTHS)
    return FeatureSet.open(str(tmp_path / "set"))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of two, so that nine utterances make several."""
    monkeypatch.setattr("voxsrc.embedding.cache.PART_UTTERANCES", 2)


class Counted:
    """How many utterances went through the network."""

    def __init__(self, model: StoredModel) -> None:
        self.count = 0
        model.encoder.register_forward_pre_hook(self._add)

    def _add(self, _: Any, inputs: tuple[torch.Tensor]) -> None:
        self.count += len(inputs[0])

    def take(self) -> int:
        taken, self.count = self.count, 0
        return taken


@pytest.mark.parametrize("where", ["local", "bucket"])
@pytest.mark.usefixtures("small_parts")
def test_a_second_run_only_reads(
    where: str, model: StoredModel, features: FeatureSet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    uri = str(tmp_path / "cache") if where == "local" else f"{request.getfixturevalue('bucket')}/cache"
    counted = Counted(model)
    first = Embedder(model, cache_uri=uri).embed_set(features)
    assert counted.take() == NUM_UTTERANCES
    written = {info.uri: info.generation for info in storage.list_files(uri)}
    assert len(written) >= NUM_UTTERANCES // 2
    ids = features.index.utterance_ids[::-1]
    second = Embedder(model, cache_uri=uri).embed_set(features, ids)
    assert counted.take() == 0
    assert second.utterance_ids == ids
    np.testing.assert_array_equal(second.vectors, first.vectors[::-1])
    np.testing.assert_array_equal(second.num_frames, first.num_frames[::-1])
    assert {info.uri: info.generation for info in storage.list_files(uri)} == written


def test_only_what_is_missing_is_embedded(model: StoredModel, features: FeatureSet, tmp_path: Path) -> None:
    counted, uri = Counted(model), str(tmp_path / "cache")
    ids = features.index.utterance_ids
    Embedder(model, cache_uri=uri).embed_set(features, ids[2:5])
    assert counted.take() == 3
    whole = Embedder(model, cache_uri=uri).embed_set(features)
    assert counted.take() == NUM_UTTERANCES - 3
    expected = Embedder(model).embed_set(features)
    np.testing.assert_allclose(whole.vectors, expected.vectors, rtol=0, atol=1e-5)


def test_other_models_sets_and_modes_are_kept_apart(
    model: StoredModel, features: FeatureSet, tmp_path: Path
) -> None:
    uri = str(tmp_path / "cache")
    make_feature_set(tmp_path / "other-set", LENGTHS, step_nat=0.1)
    other_set = FeatureSet.open(str(tmp_path / "other-set"))
    other_model = make_model(tmp_path / "other-model", seed=1)
    crops = EmbeddingMode(name="crops", num_crops=2, crop_frames=50)
    for some_model, some_set, mode in (
        (model, features, EmbeddingMode()),
        (other_model, features, EmbeddingMode()),
        (model, other_set, EmbeddingMode()),
        (model, features, crops),
        (model, features, CROPS),
    ):
        counted = Counted(some_model)
        found = Embedder(some_model, mode=mode, cache_uri=uri).embed_set(some_set)
        assert counted.take() >= NUM_UTTERANCES
        expected = Embedder(some_model, mode=mode).embed_set(some_set)
        np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert len(list((tmp_path / "cache").iterdir())) == 5


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("damage", ["cut", "empty", "changed"])
def test_a_damaged_part_is_warned_of_and_redone(
    damage: str, model: StoredModel, features: FeatureSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    embedder, counted = Embedder(model, cache_uri=str(tmp_path / "cache")), Counted(model)
    expected = embedder.embed_set(features).vectors
    part = sorted((tmp_path / "cache").rglob("part-*"))[1]
    content = part.read_bytes()
    # The last tensor in the file is that of the vectors.
    changed = content[:-1] + bytes([content[-1] ^ 0x40])
    part.write_bytes({"cut": content[:-5], "empty": b"", "changed": changed}[damage])
    counted.take()
    found = embedder.embed_set(features).vectors
    assert counted.take() in (1, 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert part.name in record.getMessage() and "embedded again" in record.getMessage()
    caplog.clear()
    embedder.embed_set(features)
    assert counted.take() == 0 and not caplog.records


def test_a_part_of_another_model_is_warned_of_and_left_alone(
    model: StoredModel, features: FeatureSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = make_model(tmp_path / "other-model", seed=1)
    Embedder(other, cache_uri=str(tmp_path / "others")).embed_set(features)
    [foreign] = (tmp_path / "others").rglob("part-*")
    embedder = Embedder(model, cache_uri=str(tmp_path / "cache"))
    embedder.embed_set(features, features.index.utterance_ids[:1])
    [own] = (tmp_path / "cache").rglob("part-*")
    misplaced = own.with_name("part-0123456789abcdef.safetensors")
    shutil.copy(foreign, misplaced)
    found = embedder.embed_set(features).vectors
    np.testing.assert_allclose(found, Embedder(model).embed_set(features).vectors, rtol=0, atol=1e-5)
    assert "of another model, source or mode" in caplog.text
    assert misplaced.read_bytes() == foreign.read_bytes()


def test_a_slow_run_writes_what_it_has(
    model: StoredModel, features: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxsrc.embedding.cache.PART_SECONDS", 0.0)
    Embedder(model, batch_frames=1, cache_uri=str(tmp_path / "cache")).embed_set(features)
    assert len(list((tmp_path / "cache").rglob("part-*"))) == NUM_UTTERANCES


def test_what_was_done_before_an_error_is_kept(
    model: StoredModel, features: FeatureSet, tmp_path: Path
) -> None:
    embedder, counted = Embedder(model, batch_frames=1, cache_uri=str(tmp_path / "cache")), Counted(model)
    read = features.read
    calls = iter(range(100))

    def failing(utterance_id: str) -> np.ndarray:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return read(utterance_id)

    features.read = failing  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        embedder.embed_set(features)
    assert counted.take() == 4
    features.read = read  # type: ignore[method-assign]
    embedder.embed_set(features)
    assert counted.take() == NUM_UTTERANCES - 4


def embed_and_end(model_uri: str, features: FeatureSet, cache: Path, kill_at: int) -> NoReturn:
    """In a process of its own: dies by SIGKILL before its n-th operation on files, in the cache's folder."""
    code = 1
    try:
        # SIGKILL takes nothing from what the kernel has already; only a power failure would.
        os.fsync = lambda fd: None
        embedder = Embedder(load_model(model_uri), batch_frames=1, cache_uri=str(cache))
        kill_at_operation(kill_at, below=cache)
        embedder.embed_set(features)
        code = 0
    finally:
        os._exit(code)


@pytest.mark.usefixtures("small_parts")
def test_killed_at_any_instant_it_goes_on(
    model: StoredModel, features: FeatureSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = Embedder(model, batch_frames=1).embed_set(features)
    begun = tmp_path / "begun"
    Embedder(model, batch_frames=1, cache_uri=str(begun)).embed_set(
        features, features.index.utterance_ids[:4]
    )
    counted, embedded = Counted(model), []
    for kill_at in range(1, 100):
        cache = tmp_path / f"killed-at-{kill_at}"
        shutil.copytree(begun, cache)
        child = os.fork()
        if child == 0:
            embed_and_end(str(tmp_path / "model"), features, cache, kill_at)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL)
        found = Embedder(model, batch_frames=1, cache_uri=str(cache)).embed_set(features)
        assert found.utterance_ids == expected.utterance_ids
        np.testing.assert_array_equal(found.vectors, expected.vectors)
        embedded.append(counted.take())
        if code == 0:
            break
    # Four were there and five missing, in parts of two: the later the kill, the fewer are left.
    assert embedded == sorted(embedded, reverse=True)
    assert set(embedded) == {5, 3, 1, 0}
    assert len(embedded) > 12
    assert not caplog.records


def test_no_kill_divides_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedding's last bits depend on its batch: those that were in one are kept, or redone, together."""
    monkeypatch.setattr("voxsrc.embedding.cache.PART_UTTERANCES", 4)
    batches, key = ["abc", "de", "fghij"], CacheKey("model", "source", "mode", (2,))
    write_bytes = storage.write_bytes
    seen = set()
    for num_writes in range(9):
        left = iter(range(num_writes))

        def write(uri: str, content: bytes, left: Iterator[int] = left) -> object:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return write_bytes(uri, content)

        cache = EmbeddingCache(str(tmp_path / str(num_writes)), key)
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(storage, "write_bytes", write)
            for batch in batches:
                cache.add(batch, np.zeros((len(batch), 2), np.float32), np.ones(len(batch), np.int64))
            cache.flush()
        kept = set(cache.load())
        assert all(kept.issuperset(batch) or kept.isdisjoint(batch) for batch in batches), kept
        seen.add(len(kept))
    assert {0, 10} < seen
