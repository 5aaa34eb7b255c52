"""The thread that prepares batches."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainer.batches import BatchLoader
from trainer.data import DeviceFeatures
from trainer.placement import DataConfig
from trainer.sampler import Sampler, SamplerConfig
from trainer.utterances import TrainingUtterances


def test_it_works_on_the_trainings_gpu(features: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []

    def noting(what: Any) -> Any:
        done.append((threading.current_thread().name.partition("_")[0], what))
        return what

    opened = DeviceFeatures.open(features)
    sampler = Sampler(TrainingUtterances.of(opened.index), SamplerConfig(), batch_size=4, seed=0)
    loader = BatchLoader(sampler, opened, config=DataConfig(prefetch_batches=2))
    monkeypatch.setattr(torch.cuda, "set_device", noting)
    monkeypatch.setattr(loader, "_copies", SimpleNamespace(device=torch.device("cuda:1")))
    monkeypatch.setattr(loader, "_prepare", noting)
    monkeypatch.setattr(loader, "_finish", lambda prepared: prepared)
    list(loader.batches(0, 3))
    assert done == [("batches", torch.device("cuda:1")), *(("batches", step) for step in range(3))]
