"""`utterances.parquet`: where each utterance's frames are."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from voxsrc.errors import FeatureSetError
from voxsrc.feature_set.shard import ShardRecord

_SCHEMA = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("speaker_id", pa.string()),
        ("session_id", pa.string()),
        ("shard", pa.int32()),
        ("first_frame", pa.int64()),
        ("num_frames", pa.int32()),
    ]
)


@dataclass(frozen=True)
class UtteranceIndex:
    """The utterances of a set, in the order of shards and of frames within them.

    Attributes:
        utterance_ids: N ids.
        speaker_ids: N speakers.
        session_ids: N sessions.
        shards: (N,) int64, the shard of each.
        first_frames: (N,) int64, where each begins in the frames of the whole set.
        num_frames: (N,) int64.
    """

    utterance_ids: list[str]
    speaker_ids: list[str]
    session_ids: list[str]
    shards: NDArray[np.int64]
    first_frames: NDArray[np.int64]
    num_frames: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.utterance_ids)


def index_to_parquet(records: Sequence[ShardRecord]) -> bytes:
    """The file's content; `first_frame` counts from the start of the utterance's shard."""
    columns: dict[str, list[object]] = {name: [] for name in _SCHEMA.names}
    for shard, record in enumerate(records):
        first_frame = 0
        for utterance in record.utterances:
            row = (
                utterance.utterance_id,
                utterance.speaker_id,
                utterance.session_id,
                shard,
                first_frame,
                utterance.num_frames,
            )
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
            first_frame += utterance.num_frames
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def index_from_parquet(content: bytes, frames_per_shard: Sequence[int]) -> UtteranceIndex:
    """Reads the file's content.

    Raises:
        FeatureSetError: If it is not such a file, or does not fit the shards.
    """
    try:
        table = pq.read_table(io.BytesIO(content), columns=_SCHEMA.names)
        columns = {name: table[name].combine_chunks() for name in _SCHEMA.names}
    except (pa.ArrowException, KeyError) as error:
        raise FeatureSetError(f"not an utterance index ({error})") from error
    shards, in_shard, num_frames = (
        columns[name].to_numpy(zero_copy_only=False).astype(np.int64)
        for name in ("shard", "first_frame", "num_frames")
    )
    per_shard = np.bincount(shards, weights=num_frames, minlength=len(frames_per_shard))
    if per_shard.tolist() != list(frames_per_shard):
        raise FeatureSetError("the utterances' frames do not add up to the shards'")
    shard_starts = np.concatenate([[0], np.cumsum(frames_per_shard, dtype=np.int64)])
    return UtteranceIndex(
        utterance_ids=columns["utterance_id"].to_pylist(),
        speaker_ids=columns["speaker_id"].to_pylist(),
        session_ids=columns["session_id"].to_pylist(),
        shards=shards,
        first_frames=in_shard + shard_starts[shards],
        num_frames=num_frames,
    )
