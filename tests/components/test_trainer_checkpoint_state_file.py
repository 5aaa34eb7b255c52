"""What a checkpoint holds, bit for bit."""

import math
from collections import OrderedDict
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import bits, file_bytes, state_of
from trainer.checkpoint import CheckpointError
from trainer.checkpoint.state_file import FORMAT, State, restore, snapshot


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
