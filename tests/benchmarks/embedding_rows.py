"""Rows on embedding: what it costs beside the bare forward passes, on one core."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from evaluation_bench import QUICK, EvaluationBench
from numpy.typing import NDArray
from report import Row, Target
from timing import Pairs, alternate
from training_material import Corpus, sample_corpus

from voxsrc.embedding import CROPS, WHOLE_UTTERANCES, EmbeddingMode
from voxsrc.embedding.embedder import Embedder
from voxsrc.feature_set import FeatureSet
from voxsrc.features import preset
from voxsrc.models.encoder import EncoderConfig, SpeakerEncoder
from voxsrc.models.stored import ModelDescription, StoredModel, load_model, save_model

_SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
_COST = Target(1.1, "ours", "at most")
_UNIT = "× their processor time"
_BARE = "the same batches through the bare network"


def rows(bench: EvaluationBench) -> Iterator[Row]:
    """Measures whole utterances, crops, audio and the cache, on the bundled speech."""
    name = "ResNet_mini" if bench.effort == QUICK else "ResNetSE34L"
    corpus = sample_corpus(_SAMPLES, 0.0, bench.scratch)
    model = _untrained(name, str(bench.scratch / "embedding-model"))
    yield _set_row(bench, model, corpus, WHOLE_UTTERANCES, f"{name}: embedding a set, whole utterances")
    yield _set_row(bench, model, corpus, CROPS, f"{name}: embedding a set, 10 crops of 400 frames")
    yield _audio_row(bench, model, corpus, f"{name}: embedding straight from wav, whole utterances")
    yield _cache_row(bench, model, corpus, f"{name}: a second run, whose embeddings were kept")


def _set_row(
    bench: EvaluationBench, model: StoredModel, corpus: Corpus, mode: EmbeddingMode, title: str
) -> Row:
    features = FeatureSet.open(corpus.features)
    embedder = Embedder(model, mode=mode)
    # Ten crops have some six times the frames of an utterance.
    ids = features.index.utterance_ids[:: 3 if mode.name == "utterance" else 18]
    bare = _bare_passes(embedder, features, ids)
    num_pairs = bench.effort.num_fast_pairs
    pairs = alternate(lambda _: embedder.embed_set(features, ids), lambda _: bare(), num_pairs)
    return _row(f"embedding_{mode.name}", title, pairs, features, ids, target=_COST)


def _audio_row(bench: EvaluationBench, model: StoredModel, corpus: Corpus, title: str) -> Row:
    features = FeatureSet.open(corpus.features)
    embedder = Embedder(model)
    ids = features.index.utterance_ids[::3]
    bare = _bare_passes(embedder, features, ids)
    num_pairs = bench.effort.num_fast_pairs
    pairs = alternate(lambda _: embedder.embed_audio(str(corpus.wavs), ids), lambda _: bare(), num_pairs)
    return _row("embedding_audio", title, pairs, features, ids)


def _cache_row(bench: EvaluationBench, model: StoredModel, corpus: Corpus, title: str) -> Row:
    features = FeatureSet.open(corpus.features)
    embedder = Embedder(model, cache_uri=str(bench.scratch / "embedding-cache"))
    ids = features.index.utterance_ids[::3]
    bare = _bare_passes(embedder, features, ids)
    # Warming up fills the cache.
    pairs = alternate(lambda _: embedder.embed_set(features, ids), lambda _: bare(), bench.effort.num_pairs)
    return _row("embedding_kept", title, pairs, features, ids)


def _bare_passes(embedder: Embedder, features: FeatureSet, ids: Sequence[str]) -> Callable[[], None]:
    """Nothing but the network on batches that lie in memory: the batches that the embedder makes."""
    batches: list[NDArray[np.float32]] = []
    encoder = embedder.model.encoder
    hook = encoder.register_forward_pre_hook(
        lambda _, inputs: batches.append(inputs[0].transpose(1, 2).numpy().copy())
    )
    Embedder(embedder.model, mode=embedder.mode).embed_set(features, ids)
    hook.remove()

    def run() -> None:
        with torch.inference_mode():
            for batch in batches:
                encoder(torch.from_numpy(batch).transpose(1, 2))

    return run


def _row(
    name: str,
    title: str,
    pairs: Pairs,
    features: FeatureSet,
    ids: Sequence[str],
    target: Target | None = None,
) -> Row:
    """What ours took in processor time, as a multiple of what the bare passes took."""
    num_frames = sum(int(features.index.num_frames[features.row(utterance_id)]) for utterance_id in ids)
    seconds = num_frames * features.manifest.spec.hop_ms / 1000
    ratios = [ours.cpu_s / theirs.cpu_s for ours, theirs in zip(pairs.ours, pairs.theirs, strict=True)]
    return Row(
        name,
        title,
        _UNIT,
        # Whatever else the machine does can only add to the least of several runs.
        ours=min(spent.cpu_s for spent in pairs.ours) / min(spent.cpu_s for spent in pairs.theirs),
        reference=1.0,
        reference_is=_BARE,
        target=target,
        details={
            "num_pairs": len(ratios),
            "of_pairs_lowest": min(ratios),
            "of_pairs_median": statistics.median(ratios),
            "of_pairs_highest": max(ratios),
            "ours_s": pairs.ours_s,
            "reference_s": pairs.theirs_s,
            "times_real_time": seconds / pairs.ours_s,
            "num_utterances": len(ids),
            "minutes": seconds / 60,
        },
    )


def _untrained(name: str, uri: str) -> StoredModel:
    """A stored model of random weights, for the features that `sample_corpus` makes."""
    torch.manual_seed(0)
    config = EncoderConfig(name=name, num_mels=40)
    description = ModelDescription(config, preset("voxceleb_trainer"), {}, {}, {})
    save_model(uri, SpeakerEncoder(config), description)
    return load_model(uri)
