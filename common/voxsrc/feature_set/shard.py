"""One shard: its frames in one file, and a record of what it holds and what it was made from.

A shard is valid when its record has the expected key and its file matches the record. The record is
written after the file, so a crash leaves either a valid shard or one that will be made again.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Self

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from voxsrc import storage
from voxsrc.errors import FeatureSetError, NotFoundError
from voxsrc.feature_set.encoding import (
    Encoding,
    Float32Array,
    Uint8Array,
    compress,
    decompress,
    time_delta,
    undo_time_delta,
)
from voxsrc.feature_set.manifest import FORMAT_VERSION, shard_name, shard_record_name


@dataclass(frozen=True)
class ShardUtterance:
    """One utterance of a shard, in the order of its frames."""

    utterance_id: str
    speaker_id: str
    session_id: str
    num_frames: int


@dataclass(frozen=True)
class RejectedUtterance:
    """One utterance that is not in the set, and why."""

    utterance_id: str
    speaker_id: str
    reason: str
    detail: str


@dataclass
class ShardCounts:
    """What happened to the audio of a shard on its way.

    Attributes:
        resampled_utterances: Utterances that had another sample rate.
        downmixed_utterances: Utterances that had several channels.
        limited_samples: Samples outside [-1, 1].
        limited_values: Log-mel values outside the encoding's range.
        low_rate_utterances: Of the resampled ones those whose rate was too low for the highest band; None
            where nothing was resampled, and in records of versions that did not count them.
    """

    resampled_utterances: int = 0
    downmixed_utterances: int = 0
    limited_samples: int = 0
    limited_values: int = 0
    low_rate_utterances: int | None = None

    def to_dict(self) -> dict[str, int]:
        """What was counted."""
        return {name: count for name, count in vars(self).items() if count is not None}


@dataclass
class ShardRecord:
    """What `shard-00000.json` says."""

    key: str
    num_bytes: int = 0
    sha256: str = ""
    crc32c: str = ""
    num_samples: int = 0
    counts: ShardCounts = field(default_factory=ShardCounts)
    utterances: list[ShardUtterance] = field(default_factory=list)
    rejected: list[RejectedUtterance] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        """Frames of all utterances."""
        return sum(utterance.num_frames for utterance in self.utterances)

    def to_json(self) -> bytes:
        """The file's content, one utterance a line."""
        fields = {
            "format_version": FORMAT_VERSION,
            "key": self.key,
            "num_bytes": self.num_bytes,
            "sha256": self.sha256,
            "crc32c": self.crc32c,
            "num_samples": self.num_samples,
            "counts": self.counts.to_dict(),
        }
        parts = [json.dumps(fields)[:-1]]
        utterances = [(u.utterance_id, u.speaker_id, u.session_id, u.num_frames) for u in self.utterances]
        rejected = [(u.utterance_id, u.speaker_id, u.reason, u.detail) for u in self.rejected]
        for name, rows in (("utterances", utterances), ("rejected", rejected)):
            lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
            parts.append(f', "{name}": [\n{lines}\n]')
        return ("".join(parts) + "}\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Reads the file's content.

        Raises:
            FeatureSetError: If it is not a shard's record of this format version.
        """
        try:
            fields = json.loads(content)
            if fields.pop("format_version") != FORMAT_VERSION:
                raise FeatureSetError("another format version")
            fields["counts"] = ShardCounts(**fields["counts"])
            fields["utterances"] = [ShardUtterance(*row) for row in fields["utterances"]]
            fields["rejected"] = [RejectedUtterance(*row) for row in fields["rejected"]]
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise FeatureSetError(f"not a shard's record ({error})") from error


class ShardWriter:
    """Gathers the utterances of one shard and writes them.

    Args:
        encoding: How the features are stored.
        key: Hash of all that decides the shard's content.
    """

    def __init__(self, encoding: Encoding, key: str) -> None:
        self.record = ShardRecord(key)
        self._encoding = encoding
        self._deltas: list[Uint8Array] = []

    def add(
        self, utterance_id: str, speaker_id: str, session_id: str, features: Float32Array, num_samples: int
    ) -> None:
        """Appends one utterance: features (T, F) in nat, and the samples they were made from."""
        levels, num_limited = self._encoding.quantise(features)
        self._deltas.append(time_delta(levels))
        self.record.utterances.append(ShardUtterance(utterance_id, speaker_id, session_id, len(levels)))
        self.record.num_samples += num_samples
        self.record.counts.limited_values += num_limited

    def reject(self, utterance_id: str, speaker_id: str, reason: str, detail: str) -> None:
        """Notes that an utterance is left out."""
        self.record.rejected.append(RejectedUtterance(utterance_id, speaker_id, reason, detail))

    def write(self, set_uri: str, shard: int) -> ShardRecord:
        """Writes the frames, then the record; returns the record."""
        content = compress(b"".join(deltas.tobytes() for deltas in self._deltas))
        self.record.num_bytes = len(content)
        self.record.sha256 = hashlib.sha256(content).hexdigest()
        self.record.crc32c = _gcs_crc32c(content)
        storage.write_bytes(storage.join(set_uri, shard_name(shard)), content)
        storage.write_bytes(storage.join(set_uri, shard_record_name(shard)), self.record.to_json())
        return self.record


def read_valid_record(set_uri: str, shard: int, key: str) -> ShardRecord | None:
    """The record of a shard that is there, whole, and made from what `key` stands for; otherwise None."""
    try:
        content = storage.read_bytes(storage.join(set_uri, shard_record_name(shard)))
        stored = storage.stat(storage.join(set_uri, shard_name(shard)))
    except NotFoundError:  # not made yet
        return None
    return valid_record(content, key, stored)


def valid_record(content: bytes, key: str, stored: storage.ObjectInfo | None) -> ShardRecord | None:
    """The record of a shard whose file is there, whole, and made from what `key` stands for; otherwise None.

    Args:
        content: The record's file.
        key: What the shard must be made from.
        stored: The shard's own file, if there is one.
    """
    try:
        record = ShardRecord.from_json(content)
    except FeatureSetError:  # damaged, or made by another version: it will be made again
        return None
    if record.key != key or stored is None or stored.size != record.num_bytes:
        return None
    if stored.crc32c is not None:
        return record if stored.crc32c == record.crc32c else None
    # A disk keeps no checksums, so the file is read: a second for each gigabyte of features.
    return record if hashlib.sha256(storage.read_bytes(stored.uri)).hexdigest() == record.sha256 else None


def empty_levels(num_frames: int, num_mels: int) -> Uint8Array:
    """Room for decoded frames, (T, F) uint8.

    Raises:
        FeatureSetError: If there is not so much memory.
    """
    try:
        return np.empty((num_frames, num_mels), np.uint8)
    except (MemoryError, ValueError) as error:  # the latter beyond 2⁶³ bytes
        raise FeatureSetError(
            f"{num_frames:,} frames of {num_mels} bands need {num_frames * num_mels / 1e9:,.1f} GB, more "
            "than there is memory; a whole set needs less by mode='mmap' (in a training: data.placement=mmap)"
        ) from error


def decode_shard(content: bytes, num_frames_each: NDArray[np.int64], out: Uint8Array) -> None:
    """Decodes a shard's file into `out` (T, F), where its utterances follow each other.

    Args:
        content: The file.
        num_frames_each: Frames of each utterance, in order; their sum is T.
        out: (T, F) uint8.

    Raises:
        FeatureSetError: If the file is damaged.
    """
    deltas = np.frombuffer(decompress(content, out.size), np.uint8).reshape(out.shape)
    ends = np.cumsum(num_frames_each)
    for first, end in zip((ends - num_frames_each).tolist(), ends.tolist(), strict=True):
        undo_time_delta(deltas[first:end], out[first:end])


def _gcs_crc32c(content: bytes) -> str:
    """The CRC32C as Google Cloud Storage states it: base64 of its big-endian bytes."""
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
