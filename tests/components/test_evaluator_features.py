"""How the evaluator reads feature sets: as the device wants, and without utterances that no model takes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from evaluations import Evaluations, Trained, with_training
from voxsrc.embedding.embedder import Embedder
from voxsrc.feature_set import FeatureSet


def test_the_device_decides_how_both_sets_are_opened(
    trained: Trained, evaluations: Evaluations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXSRC_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []
    modes: dict[str, str] = {}
    embed_set = Embedder.embed_set

    def chosen(name: str) -> torch.device:
        asked.append(name)
        return torch.device("cuda")

    def recorded(self: Embedder, features: FeatureSet, ids: Any = None) -> Any:
        modes[features.uri] = features.mode
        return embed_set(self, features, ids)

    monkeypatch.setattr("voxsrc.embedding.opening.chosen_device", chosen)
    monkeypatch.setattr(Embedder, "embed_set", recorded)
    evaluations.metrics(tmp_path / "output", *with_training(trained, "--device", "cpu"))
    assert asked == ["cpu", "cpu"]
    assert modes == {trained.test: "mmap", trained.train: "mmap"}


def test_training_utterances_too_long_to_embed_are_done_without(
    trained: Trained, evaluations: Evaluations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = FeatureSet.open(trained.train).index
    frames = dict(zip(index.utterance_ids, index.num_frames.tolist(), strict=True))
    tested = FeatureSet.open(trained.test).index.num_frames.max()
    bound = max(int(tested), sorted(frames.values())[len(frames) * 3 // 4])
    assert bound < max(frames.values())
    # As if the cap were lower than the longest training utterance.
    create = Embedder.__init__
    monkeypatch.setattr(
        Embedder, "__init__", lambda self, *given, **named: create(self, *given, **named, max_frames=bound)
    )
    evaluations.metrics(tmp_path / "output", *with_training(trained, "--scoring", "as-norm"))
    for uri, names in evaluations.embedded:
        if uri == trained.train:
            assert names and all(frames[name] <= bound for name in names)
