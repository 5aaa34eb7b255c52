"""Embeddings kept by what they were made of, so that none is computed twice and a killed run goes on.

A folder, local or in a bucket, for each model, source and mode; in it `part-….safetensors` of some thousand
embeddings, written as the work goes on. A part's name is a hash of the ids in it: runs at the same time add
parts and never replace another's by something else.
"""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from voxsrc import storage
from voxsrc.embedding.embeddings import Embeddings, Float32Array, Int64Array
from voxsrc.embedding.stored import StoredEmbeddingsError, from_safetensors, to_safetensors
from voxsrc.errors import NotFoundError

PART_UTTERANCES = 4_096
# A killed run loses no more than this, however slow the model is.
PART_SECONDS = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheKey:
    """What cached embeddings depend on, beside the utterance.

    Attributes:
        model_hash: See `voxsrc.models.stored.StoredModel`.
        source: `Manifest.content_sha256` of a feature set, or what tells how audio becomes features.
        mode: `EmbeddingMode.tag`.
        row_shape: Shape of one utterance's embeddings.
    """

    model_hash: str
    source: str
    mode: str
    row_shape: tuple[int, ...]

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"v1-{self.model_hash[:16]}-{self.source[:24]}-{self.mode}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "model_hash": self.model_hash,
            "source": self.source,
            "mode": self.mode,
            "row_shape": list(self.row_shape),
        }


@dataclass
class _Unwritten:
    ids: list[str] = field(default_factory=list)
    vectors: list[Float32Array] = field(default_factory=list)
    num_frames: list[Int64Array] = field(default_factory=list)
    since: float = 0.0


class EmbeddingCache:
    """The embeddings of one key. Used by one thread.

    Args:
        uri: Folder of all caches, local or gs://.
        key: What the embeddings depend on.
    """

    def __init__(self, uri: str, key: CacheKey) -> None:
        self.key = key
        self.folder_uri = storage.join(uri, key.folder)
        self._unwritten = _Unwritten()

    def load(self) -> dict[str, tuple[Float32Array, int]]:
        """All that is kept: by id, embeddings of `row_shape` and the utterance's frames.

        A damaged part is warned of and removed, one of another key warned of and left alone; what they
        held is embedded again.

        Raises:
            StorageError: If the folder cannot be read.
        """
        found: dict[str, tuple[Float32Array, int]] = {}
        uris = self._part_uris()
        for uri, content in zip(uris, storage.read_many(uris), strict=True):
            try:
                part, made_from = from_safetensors(content)
            except StoredEmbeddingsError as error:
                _log.warning("%s: %s; removed, its utterances are embedded again", uri, error)
                storage.delete(uri, missing_ok=True)
                continue
            if made_from != self.key.to_dict() or part.vectors.shape[1:] != self.key.row_shape:
                _log.warning(
                    "%s: of another model, source or mode than its folder's; ignored. Delete it, or put it "
                    "back where it came from",
                    uri,
                )
                continue
            rows = zip(part.utterance_ids, part.vectors, part.num_frames.tolist(), strict=True)
            found.update({utterance_id: (vectors, count) for utterance_id, vectors, count in rows})
        return found

    def add(self, ids: Sequence[str], vectors: Float32Array, num_frames: Int64Array) -> None:
        """Takes a batch in; writes a part when there are many or the oldest has waited for long.

        Raises:
            StorageError: If a part cannot be written.
        """
        unwritten = self._unwritten
        if not unwritten.ids:
            unwritten.since = time.monotonic()
        unwritten.ids += ids
        unwritten.vectors.append(vectors)
        unwritten.num_frames.append(num_frames)
        if len(unwritten.ids) >= PART_UTTERANCES or time.monotonic() - unwritten.since >= PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what has been added.

        Raises:
            StorageError: If it cannot be written.
        """
        unwritten, self._unwritten = self._unwritten, _Unwritten()
        if not unwritten.ids:
            return
        # Whole batches: an embedding's last bits depend on its batch, and a kill may come between two parts.
        embeddings = Embeddings(
            unwritten.ids, np.concatenate(unwritten.vectors), np.concatenate(unwritten.num_frames)
        )
        name = hashlib.sha256("\0".join(embeddings.utterance_ids).encode()).hexdigest()[:16]
        uri = storage.join(self.folder_uri, f"part-{name}.safetensors")
        storage.write_bytes(uri, to_safetensors(embeddings, self.key.to_dict()))

    def _part_uris(self) -> list[str]:
        try:
            infos = list(storage.list_files(self.folder_uri, recursive=False))
        except NotFoundError:
            if storage.is_remote(self.folder_uri):
                raise
            return []
        return [info.uri for info in infos if storage.name(info.uri).startswith("part-")]
