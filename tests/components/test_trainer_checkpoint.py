"""What a checkpoint holds, bit for bit, and what the store does with it, locally and in a bucket."""

import errno
import json
import logging
import math
import re
import subprocess
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcs_server import GcsServer
from trainer.checkpoint import CheckpointError, CheckpointStore, Clock, LeaseLostError
from trainer.checkpoint.pointer import POINTER_NAME, Entry, Pointer
from trainer.checkpoint.state_file import FORMAT, State, restore, snapshot
from voxsrc import storage
from voxsrc.errors import NotFoundError, PermissionDeniedError, StorageError
from voxsrc.storage import gcs_connection

LATER_S = 1000.0  # past any lease


def state_of(step: int) -> State:
    return {
        "step": step,
        "model": {"weight": torch.arange(600, dtype=torch.float32).reshape(20, 30) * step},
        "optimizer": {"state": {0: {"step": torch.tensor(float(step))}}},
    }


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


@pytest.fixture(params=["local", "bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a run writes."""
    if request.param == "local":
        return str(tmp_path / "run")
    return f"{request.getfixturevalue('bucket')}/runs/a"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs_connection, "FIRST_BACKOFF_S", 0.001)


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


# What a file holds


def test_every_kind_of_tensor_returns_bit_for_bit() -> None:
    drawn = torch.randn(4, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    state = {
        "bf16": drawn.bfloat16(),
        "half": drawn.half(),
        "double": drawn.double(),
        "int64": torch.tensor([-(2**63), 2**63 - 1]),
        "small": [torch.tensor([1], dtype=dtype) for dtype in (torch.int8, torch.uint8, torch.int16)],
        "int32": torch.tensor([7], dtype=torch.int32),
        "mask": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
        "empty_transposed": torch.empty(3, 0).t(),
        "scalar": torch.tensor(math.pi),
        "channels_last": drawn.to(memory_format=torch.channels_last),
        "channels_last_of_one": drawn[:, :1].to(memory_format=torch.channels_last),
        "transposed": drawn[0, 0].t(),
        "of_a_larger_one": torch.arange(10)[5:],
        "parameter": torch.nn.Parameter(drawn),
        "special": torch.tensor([math.nan, -0.0, math.inf, 1e-45]),
    }
    loaded = restore(file_bytes(state))
    assert bits(loaded) == bits(state)
    assert loaded["channels_last"].is_contiguous(memory_format=torch.channels_last)
    assert not loaded["parameter"].requires_grad
    pointers = [tensor.data_ptr() % 64 for tensor in loaded.values() if isinstance(tensor, torch.Tensor)]
    assert set(pointers) == {0}


def test_a_view_with_gaps_is_stored_as_the_value_that_it_is() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    loaded = restore(file_bytes({"column": whole[:, 1], "expanded": torch.ones(1).expand(5)}))
    assert bits(loaded) == bits({"column": whole[:, 1].clone(), "expanded": torch.ones(5)})


def test_every_kind_of_plain_value_returns() -> None:
    state = {
        "values": [None, True, 1, -(2**70), 0.1, -0.0, 1e-320, math.inf, "ü\n", ""],
        "betas": (0.9, 0.999),
        "nested": [[], {}, (), [{"a": ({1: "one"},)}]],
        "keys": {0: "zero", "0": "text", -5: "minus"},
    }
    assert bits(restore(file_bytes(state))) == bits(state)
    assert math.isnan(restore(file_bytes({"nan": math.nan}))["nan"])
    ordered = OrderedDict([("b", 1), ("a", 2)])
    assert list(restore(file_bytes({"ordered": ordered}))["ordered"]) == ["b", "a"]


def test_names_that_would_collide_are_kept_apart() -> None:
    state = {"a": {"b": torch.tensor(1)}, "a/b": torch.tensor(2), "__metadata__": torch.tensor(3)}
    assert bits(restore(file_bytes(state))) == bits(state)


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.builds(
        lambda shape, dtype: torch.arange(math.prod(shape)).to(dtype).reshape(shape),
        st.lists(st.integers(0, 3), max_size=4),
        st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8, torch.float64]),
    ),
    lambda inner: st.lists(inner, max_size=4)
    | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=4), trees, max_size=4))
def test_round_trip_of_any_tree(state: State) -> None:
    content = file_bytes(state)
    assert bits(restore(content)) == bits(state)
    assert file_bytes(restore(content)) == content


def trained(optimizer_name: str) -> tuple[torch.nn.Module, torch.optim.Optimizer, Any, Any]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten())
    model = model.to(memory_format=torch.channels_last)
    optimizer: torch.optim.Optimizer
    if optimizer_name == "adamw":
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, amsgrad=True)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
    return model, optimizer, schedule, scaler


def train(parts: tuple[torch.nn.Module, torch.optim.Optimizer, Any, Any], first: int, end: int) -> None:
    model, optimizer, schedule, scaler = parts
    for step in range(first, end):
        crop = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        scaler.scale(model(crop).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()


@pytest.mark.parametrize("optimizer_name", ["adamw", "sgd"])
def test_training_from_a_checkpoint_equals_uninterrupted_training(optimizer_name: str) -> None:
    def whole(parts: tuple[torch.nn.Module, torch.optim.Optimizer, Any, Any]) -> State:
        return dict(
            zip(("model", "optimizer", "schedule", "scaler"), (p.state_dict() for p in parts), strict=True)
        )

    uninterrupted = trained(optimizer_name)
    train(uninterrupted, 0, 3)
    content = file_bytes(whole(uninterrupted))
    train(uninterrupted, 3, 6)
    resumed = trained(optimizer_name)
    loaded = restore(content)
    for part, name in zip(resumed, ("model", "optimizer", "schedule", "scaler"), strict=True):
        part.load_state_dict(loaded[name])
    assert file_bytes(whole(resumed)) == content
    train(resumed, 3, 6)
    assert file_bytes(whole(resumed)) == file_bytes(whole(uninterrupted)) != content


def test_equal_states_give_equal_bytes_that_safetensors_reads() -> None:
    state: State = {
        "odd": torch.tensor([1, 2, 3], dtype=torch.uint8),
        "model": OrderedDict(w=torch.randn(3, 2), b=torch.ones(1, dtype=torch.bfloat16)),
        "n": torch.tensor(5),
    }
    copied = {"odd": state["odd"].clone(), "model": dict(state["model"]), "n": torch.tensor(5)}
    content = file_bytes(state)
    assert content == file_bytes(copied)
    read = safetensors.torch.load(content)
    assert {name: bits(tensor) for name, tensor in read.items()} == {
        "odd": bits(state["odd"]),
        "model/w": bits(state["model"]["w"]),
        "model/b": bits(state["model"]["b"]),
        "n": bits(state["n"]),
    }


def test_a_snapshot_does_not_see_later_changes_and_reuses_memory() -> None:
    state = state_of(1)
    first = snapshot(state)
    before = bytes(first.content())
    state["model"]["weight"].zero_()
    assert bytes(first.content()) == before
    second = snapshot(state_of(2), spare=first)
    assert second.buffer is first.buffer
    assert bits(restore(bytes(second.content()))) == bits(state_of(2))
    larger = snapshot({"x": torch.zeros(1_000_000)}, spare=second)
    assert larger.buffer is not second.buffer


@pytest.mark.gpu
def test_tensors_of_a_gpu_return_bit_for_bit() -> None:
    weight = torch.randn(500, 300, device="cuda")
    state = {
        "gpu": weight,
        "last": weight[None, None].to(memory_format=torch.channels_last),
        "cpu": torch.ones(2),
    }
    expected = {"gpu": weight.cpu(), "last": state["last"].cpu(), "cpu": torch.ones(2)}
    copied = snapshot(state)
    weight.zero_()
    assert copied.buffer.is_pinned()
    assert bits(restore(bytes(copied.content()))) == bits(expected)
    again = snapshot(state, spare=copied)
    assert again.buffer is copied.buffer
    assert restore(bytes(again.content()), "cuda")["gpu"].is_cuda


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": [object()]}}, "a/b/0 is a object; expected tensors"),
        ({"a": b"x"}, "a is a bytes"),
        ({"a": {(1, 2): 1}}, r"a has the key \(1, 2\); expected text or an integer"),
        ({"a": {True: 1}}, "a has the key True"),
        ({"a": torch.zeros(1, dtype=torch.complex64)}, "a is a tensor of torch.complex64"),
        ({"a": torch.eye(2).to_sparse()}, "torch.sparse_coo; expected a strided one"),
    ],
)
def test_what_cannot_be_saved_is_named(state: State, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        snapshot(state)


def test_what_is_no_checkpoint_is_refused() -> None:
    whole = file_bytes(state_of(1))
    foreign = safetensors.torch.save({"w": torch.ones(2)})
    for content in (b"", b"PK\x03\x04", whole[:-1], whole[:100], whole[8:], foreign):
        with pytest.raises(CheckpointError, match="is not a checkpoint"):
            restore(content)
    with pytest.raises(CheckpointError, match=r"is in the format 'voxsrc-checkpoint-9'; expected"):
        restore(whole.replace(FORMAT.encode(), b"voxsrc-checkpoint-9"))
    with pytest.raises(CheckpointError, match="holds a list; expected a dict"):
        restore(file_bytes([1]))  # type: ignore[arg-type]


# What the store does


def test_saves_loads_and_keeps_the_last_and_the_best(output: str) -> None:
    with CheckpointStore(output, keep_last=2).open_for_writing("a") as store:
        assert store.load() is None
        assert store.best is None
        for step, metric in ((1, 9.0), (2, 3.0), (3, 4.0), (4, None), (5, math.nan)):
            entry = store.save(step, state_of(step), metric=metric)
            assert checkpoint_files(store) == {kept.name for kept in store.entries}
        assert steps(store) == [5, 4, 2]
        assert entry.name == f"step-000000005-{entry.sha256[:12]}.checkpoint.safetensors"
        assert storage.stat(storage.join(store.folder_uri, entry.name)).size == entry.bytes
        best = store.load(best=True)
        assert best is not None
        assert (best.entry.step, best.entry.metric, best.skipped) == (2, 3.0, ())
        assert bits(best.state) == bits(state_of(2))
    reader = CheckpointStore(output)
    newest = reader.load(map_location="cpu")
    assert newest is not None
    assert bits(newest.state) == bits(state_of(5))
    assert (steps(reader), reader.best) == ([5, 4, 2], best.entry)


def test_a_higher_metric_may_be_better_and_the_earliest_of_equals_is_best(tmp_path: Path) -> None:
    with CheckpointStore(str(tmp_path), keep_last=1, lower_is_better=False).open_for_writing("a") as store:
        for step, metric in enumerate((0.5, 0.7, 0.7, 0.6)):
            store.save(step, state_of(step), metric=metric)
        assert steps(store) == [3, 1]
    assert CheckpointStore(str(tmp_path)).best == store.best  # a reader need not know


def test_without_any_metric_none_is_best(tmp_path: Path) -> None:
    with CheckpointStore(str(tmp_path)).open_for_writing("a") as store:
        store.save(1, state_of(1))
        assert store.load(best=True) is None


def test_saving_a_step_again_replaces_it_and_what_came_after(tmp_path: Path) -> None:
    with CheckpointStore(str(tmp_path), keep_last=5).open_for_writing("a") as store:
        for step in (10, 20, 30):
            store.save(step, state_of(step), metric=float(step))
        store.save(20, state_of(20))
        assert [(entry.step, entry.metric) for entry in store.entries] == [(20, 20.0), (10, 10.0)]
        store.save(20, state_of(21))
        assert [(entry.step, entry.metric) for entry in store.entries] == [(20, 20.0), (10, 10.0)]
        assert checkpoint_files(store) == {entry.name for entry in store.entries}


@pytest.mark.parametrize("harm", ["flipped", "shorter", "missing"])
def test_a_damaged_newest_falls_back_and_says_so(
    output: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointStore(output).open_for_writing("a") as store:
        for step in (1, 2, 3):
            store.save(step, state_of(step))
        newest = store.entries[0]
        uri = storage.join(store.folder_uri, newest.name)
        if harm == "flipped":
            damage(store, newest)
        elif harm == "shorter":
            storage.write_bytes(uri, storage.read_bytes(uri)[:-1])
        else:
            storage.delete(uri)
    reason = "no such object|does not exist" if harm == "missing" else "damaged: .* bytes with SHA-256"
    with CheckpointStore(output).open_for_writing("b") as store:
        loaded = store.load()
        assert loaded is not None
        assert bits(loaded.state) == bits(state_of(2))
        assert [skipped.name for skipped in loaded.skipped] == [newest.name]
        assert re.search(reason, loaded.skipped[0].reason)
        assert f"checkpoint {newest.name} skipped, falling back to {loaded.entry.name}" in caplog.text
        # The same steps come again, to the same file, which is whole then.
        assert store.save(3, state_of(3)).name == newest.name
        assert steps(store) == [3, 2, 1]
        store.save(4, state_of(4))
        assert steps(store) == [4, 3, 2]
        assert checkpoint_files(store) == {entry.name for entry in store.entries}
    again = CheckpointStore(output).load()
    assert again is not None
    assert (again.entry.step, again.skipped) == (4, ())


def test_a_damaged_one_goes_with_the_next_save(tmp_path: Path) -> None:
    with CheckpointStore(str(tmp_path)).open_for_writing("a") as store:
        for step in (1, 2):
            store.save(step, state_of(step))
        damaged = store.entries[0]
        damage(store, damaged)
        loaded = store.load()
        assert loaded is not None
        assert loaded.entry.step == 1
        assert damaged.name in checkpoint_files(store)
        store.save(5, state_of(5))
        assert steps(store) == [5, 1]
        assert checkpoint_files(store) == {entry.name for entry in store.entries}


def test_no_whole_one_left_names_them_all(output: str) -> None:
    with CheckpointStore(output).open_for_writing("a") as store:
        for step in (1, 2):
            store.save(step, state_of(step), metric=1.0)
            damage(store, store.entries[0])
        for best in (False, True):
            with pytest.raises(CheckpointError, match="no checkpoint can be loaded") as raised:
                store.load(best=best)
            assert all(entry.name in str(raised.value) for entry in store.entries if not best)
        assert steps(store) == [2, 1]  # nothing is forgotten for that


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b'{"format_version": 1, "checkpoints": [{"name": "../x"}]}']
)
def test_without_a_whole_pointer_the_names_are_gone_by(
    output: str, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointStore(output).open_for_writing("a") as store:
        for step in (1, 2, 3):
            store.save(step, state_of(step))
        damage(store, store.entries[0])
        kept = store.entries
    pointer_uri = storage.join(store.folder_uri, POINTER_NAME)
    storage.delete(pointer_uri)
    if content is not None:
        storage.write_bytes(pointer_uri, content)
    reader = CheckpointStore(output).load()
    assert reader is not None
    assert (reader.entry.step, len(reader.skipped)) == (2, 1)
    assert "going by the names of the 3 checkpoint files" in caplog.text
    with CheckpointStore(output).open_for_writing("b") as store:
        assert [entry.name for entry in store.entries] == [entry.name for entry in kept]
        assert bits(store.load()) is not None
        store.save(4, state_of(4))
        assert steps(store) == [4, 2, 1]


def test_a_pointer_cannot_lead_elsewhere(tmp_path: Path) -> None:
    entry = {"name": "../../secret", "step": 1, "bytes": 1, "sha256": "0", "metric": None}
    fields = {"format_version": 1, "writer": "w", "lower_is_better": True, "checkpoints": [entry]}
    assert Pointer.from_json(json.dumps(fields).encode(), "p") is None


def test_a_pointer_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    uri = str(tmp_path / "checkpoints" / POINTER_NAME)
    storage.write_bytes(uri, b'{"format_version": 2}')
    for _ in range(2):  # the lease is given back
        with pytest.raises(CheckpointError, match="has format version 2; expected 1: use the version"):
            CheckpointStore(str(tmp_path)).open_for_writing("a")
    assert storage.read_bytes(uri) == b'{"format_version": 2}'


def test_a_reader_follows_a_writer_that_removes_what_it_was_about_to_read(
    output: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointStore(output, keep_last=1).open_for_writing("a") as store:
        store.save(1, state_of(1))
        read_bytes = storage.read_bytes
        reads = 0

        def overtaken(uri: str) -> bytes:
            nonlocal reads
            if uri.endswith(".safetensors") and (reads := reads + 1) == 1:
                store.save(2, state_of(2))
            return read_bytes(uri)

        monkeypatch.setattr(storage, "read_bytes", overtaken)
        loaded = CheckpointStore(output).load()
        assert loaded is not None
        assert (loaded.entry.step, loaded.skipped, reads) == (2, (), 2)
        assert "skipped" not in caplog.text


def test_nothing_yet_is_no_error_but_a_missing_bucket_is(tmp_path: Path, bucket: str) -> None:
    assert CheckpointStore(str(tmp_path / "none")).load() is None
    assert CheckpointStore(f"{bucket}/none").load() is None
    missing = CheckpointStore("gs://no-such-bucket-here/run")
    with pytest.raises(NotFoundError, match="no such bucket"):
        missing.load()
    with pytest.raises(NotFoundError, match="no such bucket"):
        missing.open_for_writing("a")


def test_only_an_open_store_saves(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    with pytest.raises(CheckpointError, match="not open for writing; call open_for_writing"):
        store.save(1, state_of(1))
    with pytest.raises(CheckpointError, match="keep_last is 0; expected 1 or more"):
        CheckpointStore(str(tmp_path), keep_last=0)


# Failures


def test_a_bucket_without_the_right_to_write_is_refused_at_once(bucket: str, gcs_server: GcsServer) -> None:
    gcs_server.fail("status", method="POST", path="/upload/", status=403)
    with pytest.raises(
        PermissionDeniedError, match=r"writer\.json: cannot write: .*storage\.objects\.create"
    ):
        CheckpointStore(f"{bucket}/run").open_for_writing("a")


def test_a_bucket_without_the_right_to_replace_is_refused_at_once(bucket: str, gcs_server: GcsServer) -> None:
    gcs_server.fail("status", method="POST", path="ifGenerationMatch=1", status=403, times=99)
    with pytest.raises(PermissionDeniedError, match=r"writer\.json: cannot write"):
        CheckpointStore(f"{bucket}/run").open_for_writing("a")


def test_an_outage_fails_a_save_and_harms_nothing(
    bucket: str, gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CheckpointStore(f"{bucket}/run", keep_last=1).open_for_writing("a") as store:
        store.save(1, state_of(1))
        monkeypatch.setenv("VOXSRC_STORAGE_DEADLINE_S", "0.02")
        gcs_server.fail("status", method="POST", path="/upload/", status=503, times=1000)
        with pytest.raises(StorageError, match="nothing has moved"):
            store.save(2, state_of(2))
        gcs_server.clear()
        # The pointer is written, but nobody learns of it.
        gcs_server.fail("lose_answer", method="POST", path="ifGenerationMatch=1")
        gcs_server.fail("status", method="POST", path="ifGenerationMatch=1", status=503, times=1000)
        with pytest.raises(StorageError, match="nothing has moved"):
            store.save(3, state_of(3))
        gcs_server.clear()
        monkeypatch.setenv("VOXSRC_STORAGE_DEADLINE_S", "20")
        for reader in (store, CheckpointStore(f"{bucket}/run")):
            loaded = reader.load()
            assert loaded is not None
            assert bits(loaded.state) == bits(state_of(loaded.entry.step))
        store.save(4, state_of(4))
        assert steps(store) == steps(CheckpointStore(f"{bucket}/run")) == [4]
        assert checkpoint_files(store) == {store.entries[0].name}


def test_what_could_not_be_removed_is_removed_later(
    output: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(uri: str, *, missing_ok: bool = False) -> None:
        raise PermissionDeniedError(f"{uri}: cannot delete")

    with CheckpointStore(output, keep_last=1).open_for_writing("a") as store:
        store.save(1, state_of(1))
        with monkeypatch.context() as patch:
            patch.setattr(storage, "delete", refuse)
            store.save(2, state_of(2))
        assert "no longer needed was not removed" in caplog.text
        assert len(checkpoint_files(store)) == 2
        store.save(3, state_of(3))
        assert checkpoint_files(store) == {store.entries[0].name}


def test_each_single_change_of_a_save_may_be_refused(output: str) -> None:
    for refused in range(4):  # file, pointer, and the removal of two files
        with CheckpointStore(f"{output}-{refused}", keep_last=2).open_for_writing("a") as store:
            for step in (1, 2, 3):
                store.save(step, state_of(step))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(storage, "delete", _refused)
                store.save(4, state_of(4))  # so that two removals are due with the next
            with pytest.MonkeyPatch.context() as patch:
                Refusing(patch, refused)
                if refused < 2:
                    with pytest.raises(StorageError, match="refused"):
                        store.save(5, state_of(5))
                else:
                    store.save(5, state_of(5))
            loaded = CheckpointStore(f"{output}-{refused}").load()
            assert loaded is not None
            assert (loaded.entry.step, loaded.skipped) == (4 if refused < 2 else 5, ())
            store.save(6, state_of(6))
            assert steps(store) == ([6, 4] if refused < 2 else [6, 5])
            assert checkpoint_files(store) == {entry.name for entry in store.entries}


def _refused(*args: Any, **options: Any) -> None:
    raise StorageError("refused")


class Refusing:
    """Storage that refuses its n-th change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
        self._left = refused
        for name in ("write_bytes", "delete"):
            monkeypatch.setattr(storage, name, self._wrapped(getattr(storage, name)))

    def _wrapped(self, change: Any) -> Any:
        def refusing(*args: Any, **options: Any) -> Any:
            self._left -= 1
            return (_refused if self._left == -1 else change)(*args, **options)

        return refusing


def check_that_a_full_disk_harms_nothing(store: CheckpointStore, free: Any) -> None:
    """Of a store with step 1 on a full disk; `free` makes room."""
    with pytest.raises(StorageError, match="No space left on device"):
        store.save(2, state_of(2))
    loaded = CheckpointStore(store.folder_uri.removesuffix("/checkpoints")).load()
    assert loaded is not None
    assert bits(loaded.state) == bits(state_of(1))
    free()
    store.save(2, state_of(2))
    assert steps(store) == [2, 1]
    assert checkpoint_files(store) == {entry.name for entry in store.entries}


def test_no_space_in_any_write_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with CheckpointStore(str(tmp_path)).open_for_writing("a") as store:
        store.save(1, state_of(1))
        with monkeypatch.context() as patch:
            patch.setattr("voxsrc.storage.local.os.fsync", full)
            check_that_a_full_disk_harms_nothing(store, patch.undo)


def test_a_full_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        with CheckpointStore(str(disk)).open_for_writing("a") as store:
            store.save(1, state_of(1))
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(4096))
            check_that_a_full_disk_harms_nothing(store, filler.unlink)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# Ends at any instant


class Killed(BaseException):
    """As SIGKILL: nothing runs after it."""


@dataclass
class Mortal:
    """Storage that ends its process before or after its n-th change."""

    monkeypatch: pytest.MonkeyPatch
    end_at: int = -1
    after: bool = False
    changes: int = 0
    dead: bool = field(default=False)

    def __post_init__(self) -> None:
        for name in ("write_bytes", "delete"):
            self.monkeypatch.setattr(storage, name, self.wrapped(getattr(storage, name)))

    def wrapped(self, change: Any) -> Any:
        def mortal(*args: Any, **options: Any) -> Any:
            if self.dead:
                raise Killed
            index, self.changes = self.changes, self.changes + 1
            if index == self.end_at and not self.after:
                self.dead = True
                raise Killed
            done = change(*args, **options)
            if index == self.end_at:
                self.dead = True
                raise Killed
            return done

        return mortal


def run_of_saves(output: str, saved: list[int], clock: Clock | None = None) -> None:
    with CheckpointStore(output, keep_last=2, clock=clock).open_for_writing("a", heartbeat=False) as store:
        loaded = store.load()
        first = loaded.entry.step + 1 if loaded else 1
        for step in range(first, first + 5):
            store.save(step, state_of(step), metric=float(-step if step < 3 else step))
            saved.append(step)


@pytest.fixture
def changes_of_a_run(tmp_path: Path) -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        mortal = Mortal(patch)
        run_of_saves(str(tmp_path / "whole"), [])
    yield mortal.changes


def test_an_end_at_every_single_change_of_storage(tmp_path: Path, changes_of_a_run: int) -> None:
    assert changes_of_a_run >= 15
    for end_at in range(changes_of_a_run):
        for after in (False, True):
            output = str(tmp_path / f"{end_at}-{after}")
            saved: list[int] = [0]
            with pytest.MonkeyPatch.context() as patch:
                Mortal(patch, end_at, after)
                with pytest.raises(Killed):
                    run_of_saves(output, saved)
            loaded = CheckpointStore(output).load()
            step = loaded.entry.step if loaded is not None else 0
            assert step in (saved[-1], saved[-1] + 1)
            if loaded is not None:
                assert loaded.skipped == ()
                assert bits(loaded.state) == bits(state_of(step))
            run_of_saves(output, saved, later())
            assert saved[-1] == step + 5
            store = CheckpointStore(output)
            assert checkpoint_files(store) == {entry.name for entry in store.entries}
            assert store.best is not None
            assert store.best.step == 2


def test_who_was_taken_over_publishes_and_removes_nothing_more(output: str) -> None:
    first = CheckpointStore(output, keep_last=2).open_for_writing("first", heartbeat=False)
    first.save(1, state_of(1))
    second = CheckpointStore(output, keep_last=2, clock=later()).open_for_writing("second", heartbeat=False)
    # The second has not saved yet: only that it rewrote the pointer keeps the first from doing so.
    with pytest.raises(LeaseLostError, match=r"latest\.json: was written by somebody else \(run 'second'"):
        first.save(2, state_of(2))
    with pytest.raises(LeaseLostError):
        first.save(3, state_of(3))
    assert steps(second) == steps(CheckpointStore(output)) == [1]
    for step in (2, 3, 4):
        second.save(step, state_of(step))
        with pytest.raises(LeaseLostError):
            first.save(step, state_of(step))
    loaded = CheckpointStore(output).load()
    assert loaded is not None
    assert (loaded.entry.step, steps(second)) == (4, [4, 3])
    first.close()
    second.save(5, state_of(5))
    second.close()


def test_a_removed_pointer_ends_the_writer(output: str) -> None:
    with CheckpointStore(output).open_for_writing("a") as store:
        store.save(1, state_of(1))
        storage.delete(storage.join(store.folder_uri, POINTER_NAME))
        with pytest.raises(LeaseLostError, match=r"latest\.json: was removed"):
            store.save(2, state_of(2))


def test_warnings_show_without_any_set_up(tmp_path: Path) -> None:
    """Python's handler of last resort prints them, as long as nobody turns them off."""
    assert logging.getLogger("trainer.checkpoint").isEnabledFor(logging.WARNING)
    assert logging.getLogger("trainer.checkpoint").propagate
