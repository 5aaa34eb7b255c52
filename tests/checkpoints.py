"""Small states of a training, what is left of them in a store, and a time when every lease has run out."""

from typing import Any

import torch

from trainer.checkpoint import CheckpointStore, Clock
from trainer.checkpoint.pointer import Entry
from trainer.checkpoint.state_file import Snapshot, State, snapshot
from voxsrc import storage

LATER_S = 1000.0  # past any lease


def state_of(step: int) -> State:
    return {
        "step": step,
        "model": {"weight": torch.arange(600, dtype=torch.float32).reshape(20, 30) * step},
        "optimizer": {"state": {0: {"step": torch.tensor(float(step))}}},
    }


def snapshot_of(step: int) -> Snapshot:
    return snapshot(state_of(step))


def bits(value: Any) -> Any:
    """A value that is equal only for equal types, strides, data types and bits."""
    if isinstance(value, torch.Tensor):
        raw = (
            bytes(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()) if value.numel() else b""
        )
        return (str(value.dtype), tuple(value.shape), value.stride(), raw)
    if isinstance(value, dict):
        return {"dict": [(key, bits(item)) for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [bits(item) for item in value])
    return (type(value).__name__, repr(value))


def file_bytes(state: State) -> bytes:
    return bytes(snapshot(state).content())


def later() -> Clock:
    """A clock by which every lease taken so far has run out."""
    real = Clock()
    return Clock(now=lambda: real.now() + LATER_S)


def names(store: CheckpointStore) -> list[str]:
    return [storage.name(info.uri) for info in storage.list_files(store.folder_uri)]


def checkpoint_files(store: CheckpointStore) -> set[str]:
    return {name for name in names(store) if name.startswith("step-")}


def steps(store: CheckpointStore) -> list[int]:
    return [entry.step for entry in store.entries]


def damage(store: CheckpointStore, entry: Entry) -> None:
    uri = storage.join(store.folder_uri, entry.name)
    content = bytearray(storage.read_bytes(uri))
    content[len(content) // 2] ^= 1
    storage.write_bytes(uri, content)
