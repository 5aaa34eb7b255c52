"""Embeddings as a file: safetensors or npz, without pickle, so that reading one executes nothing.

A safetensors file has the tensors `vectors` and `num_frames`, and in its metadata, under `voxsrc`, JSON with
`utterance_ids`, whatever the writer added under `made_from`, and the SHA-256 of all that. An npz file has the
arrays `utterance_ids`, `vectors`, `num_frames` and `made_from` (JSON). Equal embeddings give equal bytes.
"""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from voxsrc import storage
from voxsrc.embedding.embeddings import Embeddings
from voxsrc.errors import ConfigError, VoxsrcError

SUFFIXES = (".npz", ".safetensors")

_METADATA = "voxsrc"
_FORMAT = 1
_LENGTH = struct.Struct("<Q")


class StoredEmbeddingsError(VoxsrcError):
    """A file of embeddings is damaged or is something else."""


def check_suffix(uri: str) -> None:
    """Raises ConfigError if `uri` does not end as a file of embeddings does."""
    if not uri.endswith(SUFFIXES):
        raise ConfigError(f"{uri}: expected a name that ends in {' or '.join(SUFFIXES)}")


def write_embeddings(uri: str, embeddings: Embeddings, made_from: Mapping[str, Any] | None = None) -> None:
    """Writes a file, atomically, in the format that its suffix tells.

    Args:
        uri: Where to, local or gs://.
        embeddings: What.
        made_from: JSON-ready facts on model and source, for people.

    Raises:
        ConfigError: If the suffix is neither `.npz` nor `.safetensors`.
        StorageError: If it cannot be written.
    """
    check_suffix(uri)
    content = to_safetensors if uri.endswith(".safetensors") else _to_npz
    storage.write_bytes(uri, content(embeddings, made_from or {}))


def read_embeddings(uri: str) -> Embeddings:
    """Reads such a file.

    Raises:
        NotFoundError: If there is none.
        ConfigError: If the suffix is neither `.npz` nor `.safetensors`.
        StoredEmbeddingsError: If it is damaged or something else.
    """
    check_suffix(uri)
    content = storage.read_bytes(uri)
    try:
        return from_safetensors(content)[0] if uri.endswith(".safetensors") else _from_npz(content)
    except StoredEmbeddingsError as error:
        raise StoredEmbeddingsError(f"{uri}: {error}; make it again") from error


def to_safetensors(embeddings: Embeddings, made_from: Mapping[str, Any]) -> bytes:
    """The content of a safetensors file."""
    fields = {
        "format": _FORMAT,
        "made_from": dict(made_from),
        "sha256": _checksum(embeddings, made_from),
        "utterance_ids": embeddings.utterance_ids,
    }
    tensors: dict[str, NDArray[Any]] = {
        "vectors": np.ascontiguousarray(embeddings.vectors),
        "num_frames": np.ascontiguousarray(embeddings.num_frames),
    }
    # One key: safetensors writes several in random order.
    return safetensors.numpy.save(tensors, {_METADATA: json.dumps(fields, ensure_ascii=False)})


def from_safetensors(content: bytes) -> tuple[Embeddings, dict[str, Any]]:
    """The embeddings in a safetensors file, and its `made_from`.

    Raises:
        StoredEmbeddingsError: If it is damaged or something else.
    """
    try:
        tensors = safetensors.numpy.load(content)
        (header_bytes,) = _LENGTH.unpack_from(content)
        header = json.loads(content[_LENGTH.size : _LENGTH.size + header_bytes])
        fields = json.loads(header["__metadata__"][_METADATA])
        if fields["format"] != _FORMAT:
            raise StoredEmbeddingsError(f"format {fields['format']}; this program reads {_FORMAT}")
        embeddings = Embeddings(fields["utterance_ids"], tensors["vectors"], tensors["num_frames"])
        made_from: dict[str, Any] = fields["made_from"]
        checksum = fields["sha256"]
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StoredEmbeddingsError(f"no embeddings, or damaged ({type(error).__name__}: {error})") from error
    if _checksum(embeddings, made_from) != checksum:
        raise StoredEmbeddingsError("damaged: its SHA-256 is not the one that it was written with")
    return embeddings, made_from


def _to_npz(embeddings: Embeddings, made_from: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        utterance_ids=np.array(embeddings.utterance_ids, np.str_),
        vectors=embeddings.vectors,
        num_frames=embeddings.num_frames,
        made_from=np.array(json.dumps(dict(made_from), ensure_ascii=False)),
    )
    return buffer.getvalue()


def _from_npz(content: bytes) -> Embeddings:
    try:
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise StoredEmbeddingsError(
                f"no embeddings: one array {loaded.shape}, a file in .npy; expected several in .npz"
            )
        with loaded as arrays:
            return Embeddings(arrays["utterance_ids"].tolist(), arrays["vectors"], arrays["num_frames"])
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, AttributeError) as error:
        raise StoredEmbeddingsError(f"no embeddings, or damaged ({type(error).__name__}: {error})") from error


def _checksum(embeddings: Embeddings, made_from: Mapping[str, Any]) -> str:
    text = json.dumps([embeddings.utterance_ids, dict(made_from)], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for array in (embeddings.vectors, embeddings.num_frames):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
