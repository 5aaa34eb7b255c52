"""A training state as one file: safetensors, with the tree around the tensors as JSON in its metadata.

Nothing in it is executed on loading, as a pickle would be. Equal states give equal bytes: header and data are
laid out here, by data type's size and then in the order of the state, and hold neither times nor addresses.
A tensor keeps data type, shape, strides (channels-last stays so, as kernels and thus last bits depend on it)
and every bit of its values. Any reader of safetensors sees the tensors as `model/conv1.weight` and so on; a
tensor whose strides are not the default ones is listed there flat, in the order of its memory.

The bytes are laid out in their final place while tensors are copied, so that copying is all that a training
loop has to wait for, and writing needs no second copy.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from trainer.checkpoint.errors import CheckpointError

State: TypeAlias = dict[str, Any]

FORMAT = "voxsrc-checkpoint-1"

_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _DTYPE_NAMES.items()}

_METADATA = "__metadata__"
_LENGTH_BYTES = 8
_HEADER_ALIGNMENT = 8  # the largest item, so that every tensor can be viewed in place
_CAPACITY_STEP = 1 << 20  # the header's length varies with the numbers in it; the buffer fits again


@dataclass(frozen=True)
class Snapshot:
    """A copy of a state, as the bytes of its file.

    Attributes:
        buffer: (at least num_bytes,) uint8 on the CPU, pinned if tensors came from a GPU.
        num_bytes: Length of the file.
        copied: Events after which copies from GPUs have arrived.
    """

    buffer: torch.Tensor
    num_bytes: int
    copied: tuple[torch.cuda.Event, ...]

    def content(self) -> memoryview:
        """The file's bytes, once all copies have arrived."""
        for event in self.copied:
            event.synchronize()
        return self.buffer.numpy()[: self.num_bytes].data


class _Encoder:
    """Turns the tree into JSON, in which every object is a tag, and gathers the tensors by name."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}

    def encode(self, value: object, path: str) -> object:
        if isinstance(value, torch.Tensor):
            return self._tensor(value.detach(), path)
        if isinstance(value, dict):
            return {"dict": [[_key(key, path), self.encode(v, f"{path}/{key}")] for key, v in value.items()]}
        if isinstance(value, (list, tuple)):
            items = [self.encode(item, f"{path}/{index}") for index, item in enumerate(value)]
            return items if isinstance(value, list) else {"tuple": items}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise CheckpointError(
            f"checkpoint: {path.lstrip('/')} is a {type(value).__name__}; expected tensors, numbers, text, "
            "None, and lists, tuples and dicts of them: convert it before saving"
        )

    def _tensor(self, tensor: torch.Tensor, path: str) -> object:
        name = path.lstrip("/")
        if tensor.dtype not in _DTYPE_NAMES or tensor.layout != torch.strided:
            raise CheckpointError(
                f"checkpoint: {name} is a tensor of {tensor.dtype}, {tensor.layout}; expected a strided one "
                f"of {', '.join(_DTYPE_NAMES.values())}: convert it before saving"
            )
        while name in self.tensors or name == _METADATA:
            name += "+"  # {"a": {"b": …}, "a/b": …}
        tag: dict[str, object] = {"tensor": name}
        if tensor.stride() != _default_strides(tensor.shape):
            if _fills_its_memory(tensor):
                tag |= {"shape": list(tensor.shape), "stride": list(tensor.stride())}
                tensor = tensor.as_strided((tensor.numel(),), (1,))
            else:
                tensor = tensor.contiguous()  # a slice or an expanded view: as the value that it is
        self.tensors[name] = tensor
        return tag


def _key(key: object, path: str) -> str | int:
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return key
    raise CheckpointError(
        f"checkpoint: {path.lstrip('/') or 'the state'} has the key {key!r}; expected text or an integer"
    )


def _default_strides(shape: torch.Size) -> tuple[int, ...]:
    return tuple(math.prod(max(size, 1) for size in shape[axis + 1 :]) for axis in range(len(shape)))


def _fills_its_memory(tensor: torch.Tensor) -> bool:
    """Whether the elements lie gap-free and once each in memory, in whatever order of the axes."""
    if not tensor.numel():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _num_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def snapshot(state: State, spare: Snapshot | None = None) -> Snapshot:
    """Copies a state to the CPU; later changes of its tensors do not show.

    Copies from a GPU are only enqueued, before whatever the current stream does to the tensors next.

    Args:
        state: Tensors, numbers, text, None, and lists, tuples and dicts of them; keys are text or integers.
        spare: A snapshot that is no longer needed: its memory is used again if it suffices. Fresh memory
            costs several times what the copy itself does.

    Raises:
        CheckpointError: The state holds anything else.
    """
    encoder = _Encoder()
    tree = json.dumps(encoder.encode(state, ""), separators=(",", ":"))
    # Larger items first: then all are aligned without gaps, which the format does not allow.
    tensors = sorted(encoder.tensors.items(), key=lambda item: -item[1].element_size())
    header: dict[str, object] = {_METADATA: {"format": FORMAT, "state": tree}}
    position = 0
    for name, tensor in tensors:
        offsets = [position, position := position + _num_bytes(tensor)]
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    start = _LENGTH_BYTES + len(text)
    devices = {tensor.device for tensor in encoder.tensors.values() if tensor.is_cuda}
    buffer = _buffer(start + position, bool(devices), spare)
    buffer.numpy()[:start] = memoryview(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
    _copy((tensor for _, tensor in tensors), buffer, start)
    copied = []
    for device in sorted(devices, key=str):
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        copied.append(event)
    return Snapshot(buffer, start + position, tuple(copied))


def _buffer(num_bytes: int, pinned: bool, spare: Snapshot | None) -> torch.Tensor:
    if spare is not None and spare.buffer.numel() >= num_bytes and (spare.copied != ()) == pinned:
        for event in spare.copied:
            event.synchronize()  # else a late copy might land on the new content
        return spare.buffer
    capacity = -(-num_bytes // _CAPACITY_STEP) * _CAPACITY_STEP + _CAPACITY_STEP
    return torch.empty(capacity, dtype=torch.uint8, pin_memory=pinned)


def _copy(tensors: Iterator[torch.Tensor], buffer: torch.Tensor, position: int) -> None:
    array = buffer.numpy()
    for tensor in tensors:
        flat, end = tensor.reshape(-1), position + _num_bytes(tensor)
        if not flat.numel():
            continue
        if flat.device.type == "cpu":
            # Not by `copy_`: it shares small copies among threads, and waits for threads that are busy.
            array[position:end] = flat.view(torch.uint8).numpy()
        else:
            buffer[position:end].view(flat.dtype).copy_(flat, non_blocking=flat.is_cuda)
        position = end


def restore(content: bytes, map_location: torch.device | str = "cpu") -> State:
    """Rebuilds the state from a file's bytes; every tensor has memory of its own on `map_location`.

    Raises:
        CheckpointError: This is not such a file, or one of another format.
    """
    try:
        start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        header = json.loads(content[_LENGTH_BYTES:start])
        metadata = header.pop(_METADATA)
        if metadata["format"] != FORMAT:
            raise CheckpointError(
                f"is in the format {metadata['format']!r}; expected {FORMAT!r}: use the version that wrote it"
            )
        state = _Decoder(header, memoryview(content)[start:], torch.device(map_location)).decode(
            json.loads(metadata["state"])
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"is not a checkpoint ({type(error).__name__}: {error})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"holds a {type(state).__name__}; expected a dict")
    return state


class _Decoder:
    def __init__(self, header: dict[str, Any], data: memoryview, device: torch.device) -> None:
        self._header = header
        self._data = data
        self._device = device

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "dict" in value:
            return {key: self.decode(item) for key, item in value["dict"]}
        if "tuple" in value:
            return tuple(self.decode(item) for item in value["tuple"])
        return self._tensor(value)

    def _tensor(self, tag: dict[str, Any]) -> torch.Tensor:
        entry = self._header[tag["tensor"]]
        dtype, (begin, end) = _DTYPES[entry["dtype"]], entry["data_offsets"]
        shape = torch.Size(tag.get("shape", entry["shape"]))
        if not 0 <= begin <= end <= len(self._data) or end - begin != shape.numel() * dtype.itemsize:
            raise ValueError(f"{tag['tensor']}: bytes {begin} to {end} do not hold {entry}")
        strides = tag.get("stride", _default_strides(shape))
        # Own memory, as aligned as always: some kernels' last bits depend on the alignment.
        tensor = torch.empty_strided(shape, strides, dtype=dtype)
        if end > begin:
            flat = tensor.as_strided((shape.numel(),), (1,))
            flat.view(torch.uint8).numpy()[:] = self._data[begin:end]
        if self._device.type == "cpu":
            return tensor
        return torch.empty_strided(shape, strides, dtype=dtype, device=self._device).copy_(tensor)
