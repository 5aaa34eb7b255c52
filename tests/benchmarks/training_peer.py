"""voxceleb_trainer's way, by its own code from a checkout that the user has.

Its `ModelTrainer` knows GPUs only; the lines of its `train_network` are followed here on the CPU.
"""

import importlib
import random
import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from training_child import Turns

_LEARNING_RATE = 1e-3
_PER_SPEAKER = 2


def crops(what: dict[str, Any], turns: "Turns") -> None:
    """Batches of log-mel crops: its loader in this process, then the filterbank of its network."""
    network = _network(what)
    filterbank: nn.Module = network.module.__S__.torchfb
    batches = _batches(what)
    for count in turns:
        for data in islice(batches, count):
            with torch.no_grad():
                (filterbank(data.transpose(1, 0).reshape(-1, data.shape[-1])) + 1e-6).log()


def steps(what: dict[str, Any], turns: "Turns") -> None:
    """Training steps on one batch of waveforms that is in memory: loading is not counted."""
    data = next(_batches(what))
    network = _network(what)
    optimizer = importlib.import_module("optimizer.adam").Optimizer(
        network.parameters(), lr=_LEARNING_RATE, weight_decay=0
    )
    labels = torch.zeros(len(data), dtype=torch.int64)
    network.train()
    for count in turns:
        for _ in range(count):
            network.zero_grad()
            loss, accuracy = network(data.transpose(1, 0), labels)
            loss.backward()
            optimizer.step()
            loss.detach().item()
            accuracy.detach().item()


def _network(what: dict[str, Any]) -> Any:
    module = _module(what, "SpeakerNet")
    return module.WrappedModel(
        module.SpeakerNet(
            model="ResNetSE34L",
            optimizer="adam",
            trainfunc="angleproto",
            nPerSpeaker=_PER_SPEAKER,
            nOut=512,
            encoder_type="SAP",
            n_mels=what["num_mels"],
            log_input=True,
        )
    )


def _batches(what: dict[str, Any]) -> Iterator[Tensor]:
    """(N, M, W) waveforms of random utterances without end, collated as by its training."""
    dataset = _module(what, "DatasetLoader").train_dataset_loader(
        train_list=what["list"],
        augment=False,
        musan_path=what["empty_folder"],
        rir_path=what["empty_folder"],
        max_frames=what["crop_frames"],
        train_path=what["wavs"],
    )
    draw = random.Random(0)
    # Planned beforehand: its sampler's time is not counted.
    groups = [draw.choices(range(len(dataset)), k=_PER_SPEAKER) for _ in range(100 * what["batch_size"])]
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=what["batch_size"] // _PER_SPEAKER, sampler=groups, num_workers=0
    )
    while True:
        for data, _ in loader:
            yield data


def _module(what: dict[str, Any], name: str) -> Any:
    if what["checkout"] not in sys.path:
        sys.path.insert(0, what["checkout"])
    return importlib.import_module(name)
