"""Embeddings of a feature set: each utterance's own, in the order asked for, nothing silently changed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_sets import make_feature_set
from tiny_models import EMBEDDING_DIM, make_model
from voxsrc.embedding import CROPS, WHOLE_UTTERANCES, EmbeddingError, EmbeddingMode
from voxsrc.embedding.embedder import Embedder
from voxsrc.embedding.embeddings import MAX_FRAMES
from voxsrc.errors import AudioError, ConfigError
from voxsrc.feature_set import FeatureSet
from voxsrc.features import FbankSpec
from voxsrc.models.stored import ModelError, StoredModel

LENGTHS = [[60, 200, 77], [41, 200, 60], [200, 60, 310, 205], [60]]


@pytest.fixture
def set_uri(tmp_path: Path) -> str:
    make_feature_set(tmp_path / "set", LENGTHS)
    return str(tmp_path / "set")


def alone(model: StoredModel, features: np.ndarray) -> np.ndarray:
    """The embeddings (B, D) of features (B, T, F), by nothing but the network."""
    with torch.inference_mode():
        return model.encoder.eval()(torch.from_numpy(features).transpose(1, 2)).numpy()


def assert_equal_but_for_rounding(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("opened_as", ["by_shard", "ram"])
@pytest.mark.parametrize("batch_frames", [1, 450, 60_000])
def test_an_embedding_is_that_of_the_utterance_alone(
    model: StoredModel, set_uri: str, opened_as: Any, batch_frames: int
) -> None:
    features = FeatureSet.open(set_uri, opened_as)
    found = Embedder(model, batch_frames=batch_frames).embed_set(features)
    assert found.utterance_ids == features.index.utterance_ids
    assert found.num_frames.tolist() == [length for shard in LENGTHS for length in shard]
    assert found.vectors.shape == (len(features), EMBEDDING_DIM)
    assert found.vectors.dtype == np.float32
    expected = np.concatenate([alone(model, utterance[None]) for _, utterance in features])
    assert_equal_but_for_rounding(found.vectors, expected)


def test_only_utterances_of_one_length_share_a_batch(model: StoredModel, set_uri: str) -> None:
    shapes: list[tuple[int, ...]] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    Embedder(model, batch_frames=400).embed_set(FeatureSet.open(set_uri, "ram"))
    # 41, 4 × 60, 77, 3 × 200 in two batches, 205, 310.
    assert shapes == [
        (n, 40, t) for n, t in ((1, 41), (4, 60), (1, 77), (2, 200), (1, 200), (1, 205), (1, 310))
    ]


def test_results_come_in_the_order_asked_for(model: StoredModel, set_uri: str) -> None:
    features = FeatureSet.open(set_uri)
    whole = Embedder(model).embed_set(features)
    order = np.random.default_rng(3).permutation(len(features))[:7]
    ids = [features.index.utterance_ids[row] for row in order]
    some = Embedder(model).embed_set(features, ids)
    assert some.utterance_ids == ids
    assert some.num_frames.tolist() == whole.num_frames[order].tolist()
    assert_equal_but_for_rounding(some.vectors, whole.vectors[order])
    assert Embedder(model).embed_set(features, []).vectors.shape == (0, EMBEDDING_DIM)


def test_by_shard_no_shard_is_decoded_twice(
    model: StoredModel, set_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    decode = FeatureSet._decode_into
    monkeypatch.setattr(
        FeatureSet, "_decode_into", lambda s, shard, out: (decoded.append(shard), decode(s, shard, out))
    )
    monkeypatch.setattr("voxsrc.feature_set.reader._SHARDS_KEPT", 1)
    features = FeatureSet.open(set_uri)
    Embedder(model).embed_set(features, features.index.utterance_ids[::-1])
    assert decoded == [0, 1, 2, 3]


def test_the_network_is_left_in_the_mode_in_which_it_was(model: StoredModel, set_uri: str) -> None:
    embedder, features = Embedder(model), FeatureSet.open(set_uri)
    expected = embedder.embed_set(features).vectors
    for training in (True, False):
        model.encoder.train(training)
        np.testing.assert_array_equal(embedder.embed_set(features).vectors, expected)
        assert model.encoder.training is training
    model.encoder.train()
    embedder.embed_features(np.zeros((60, 40), np.float32))
    assert model.encoder.training


def test_crops_are_voxceleb_trainers(model: StoredModel, set_uri: str) -> None:
    mode = EmbeddingMode(name="crops", num_crops=10, crop_frames=100)
    features = FeatureSet.open(set_uri)
    found = Embedder(model, mode=mode).embed_set(features)
    assert found.vectors.shape == (len(features), 10, EMBEDDING_DIM)
    assert found.num_frames.tolist() == [length for shard in LENGTHS for length in shard]
    for row, (_, utterance) in enumerate(features):
        # DatasetLoader.loadWAV in its evaluation mode, with frames for samples.
        if len(utterance) <= 100:
            utterance = np.pad(utterance, ((0, 100 - len(utterance)), (0, 0)), "wrap")
        starts = np.linspace(0, len(utterance) - 100, num=10)
        crops = np.stack([utterance[int(start) : int(start) + 100] for start in starts])
        assert_equal_but_for_rounding(found.vectors[row], alone(model, crops))


def test_the_protocols_crops_are_ten_of_four_seconds() -> None:
    assert (CROPS.num_crops, CROPS.crop_frames, CROPS.tag) == (10, 400, "crops-10x400")
    assert WHOLE_UTTERANCES.tag == "utterance"


@settings(max_examples=100)
@given(lengths=st.lists(st.integers(1, 50), max_size=60), batch_frames=st.integers(1, 300))
def test_every_utterance_is_in_one_batch_within_the_budget(lengths: list[int], batch_frames: int) -> None:
    num_frames = np.array(lengths, np.int64)
    for mode in (WHOLE_UTTERANCES, EmbeddingMode(name="crops", num_crops=2, crop_frames=7)):
        batches = mode.batches(num_frames, batch_frames)
        assert sorted(place for batch in batches for place in batch.tolist()) == list(range(len(lengths)))
        for batch in batches:
            of_each = set(num_frames[batch].tolist()) if mode is WHOLE_UTTERANCES else {14}
            assert len(of_each) == 1
            assert len(batch) == 1 or len(batch) * of_each.pop() <= batch_frames


def test_utterances_that_are_too_short_or_missing_are_all_named(model: StoredModel, tmp_path: Path) -> None:
    least = model.encoder.min_frames
    assert least > 2
    make_feature_set(tmp_path / "short", [[least, least - 1], [1] * 12])
    features = FeatureSet.open(str(tmp_path / "short"))
    ids = [*features.index.utterance_ids, "no/such/a.wav"]
    with pytest.raises(EmbeddingError) as caught:
        Embedder(model).embed_set(features, ids)
    assert set(caught.value.reasons) == set(ids[1:])
    message = str(caught.value)
    assert "14 of 15 utterances" in message
    assert "(1 missing, 13 too_short)" in message
    assert f"too_short: {least - 1} frames, the model needs {least}" in message
    assert len(message.splitlines()) == 1 + 10 + 1
    assert "… and 4 more" in message
    # As crops they are looped, as the protocol says.
    mode = EmbeddingMode(name="crops", num_crops=2, crop_frames=least)
    assert np.isfinite(Embedder(model, mode=mode).embed_set(features).vectors).all()


def test_no_more_frames_than_the_cap_are_embedded_at_once(model: StoredModel, tmp_path: Path) -> None:
    make_feature_set(tmp_path / "long", [[200, 201], [60, 900, 200]])
    features = FeatureSet.open(str(tmp_path / "long"))
    frames = dict(zip(features.index.utterance_ids, features.index.num_frames.tolist(), strict=True))
    shapes: list[tuple[int, ...]] = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    embedder = Embedder(model, max_frames=200)
    with pytest.raises(EmbeddingError) as caught:
        embedder.embed_set(features)
    assert set(caught.value.reasons) == {name for name, count in frames.items() if count > 200}
    message = str(caught.value)
    assert "(2 too_long)" in message
    assert "(too_long: 900 frames, at most 200 are embedded as a whole; cut the recording)" in message
    assert "voxsrc embed --crops" in caught.value.remedy
    with pytest.raises(AudioError, match="201 frames, at most 200") as refused:
        embedder.embed_features(np.zeros((201, 40), np.float32))
    assert refused.value.reason == "too_long"
    assert shapes == []
    assert np.isfinite(embedder.embed_features(np.zeros((200, 40), np.float32))).all()
    mode = EmbeddingMode(name="crops", num_crops=3, crop_frames=100)
    crops = Embedder(model, mode=mode, max_frames=200, batch_frames=600)
    assert np.isfinite(crops.embed_set(features).vectors).all()
    assert max(count * length for count, _, length in shapes) <= 600


def test_the_cap_is_above_the_longest_of_voxceleb() -> None:
    assert WHOLE_UTTERANCES.length_problem(14_500, 8, MAX_FRAMES) == ""
    assert WHOLE_UTTERANCES.length_problem(360_000, 8, MAX_FRAMES).startswith("too_long: 360000 frames")
    assert CROPS.length_problem(360_000, 8, MAX_FRAMES) == ""


def test_what_cannot_be_asked_for(model: StoredModel, set_uri: str, tmp_path: Path) -> None:
    features = FeatureSet.open(set_uri)
    first = features.index.utterance_ids[0]
    with pytest.raises(
        EmbeddingError, match=r"1 utterances are repeated \(1 repeated\).*\n.*asked for 2 times"
    ):
        Embedder(model).embed_set(features, [first, first])
    with pytest.raises(ConfigError, match="crop_frames is 3; ResNet_mini needs at least"):
        Embedder(model, mode=EmbeddingMode(name="crops", crop_frames=3))
    with pytest.raises(ConfigError, match="device is 'gpu'; expected auto, cpu, cuda or cuda:N"):
        Embedder(model, device="gpu")
    with pytest.raises(ConfigError, match="num_crops is 0; expected at least 1"):
        EmbeddingMode(name="crops", num_crops=0)
    with pytest.raises(ConfigError, match="name is 'crop'; expected utterance or crops"):
        EmbeddingMode(name="crop")  # type: ignore[arg-type]
    with pytest.raises(AudioError, match="too_short: 2 frames"):
        Embedder(model).embed_features(np.zeros((2, 40), np.float32))
    other = make_model(tmp_path / "other", spec=FbankSpec(hop_ms=12.5))
    with pytest.raises(ModelError, match=r"hop_ms is 10.0, expected 12.5"):
        Embedder(other).embed_set(features)


def test_a_broken_model_is_told_from_its_embeddings(model: StoredModel, set_uri: str, tmp_path: Path) -> None:
    with torch.no_grad():
        next(iter(model.encoder.parameters())).fill_(float("nan"))
    embedder = Embedder(model, cache_uri=str(tmp_path / "cache"))
    with pytest.raises(EmbeddingError, match=r"embeddings that are no numbers.*\n.*NaN or infinite"):
        embedder.embed_set(FeatureSet.open(set_uri))
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(model: StoredModel) -> None:
    assert Embedder(model, device="auto").device.type == "cpu"
    with pytest.raises(ConfigError, match=r"device is 'cuda', but torch .* sees no GPU"):
        Embedder(model, device="cuda")


@pytest.mark.gpu
def test_a_gpu_gives_the_same_embeddings(model: StoredModel, set_uri: str) -> None:
    features = FeatureSet.open(set_uri, "ram")
    expected = Embedder(model).embed_set(features).vectors
    found = Embedder(model, device="cuda").embed_set(features).vectors
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
