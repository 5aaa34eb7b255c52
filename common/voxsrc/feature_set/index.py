"""`utterances.parquet`: where each utterance's frames are."""

import io
from collections import Counter
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

    def duplicates(self) -> list[str]:
        """The ids that several utterances have; there should be none."""
        if len(set(self.utterance_ids)) == len(self):
            return []
        return [utterance_id for utterance_id, count in Counter(self.utterance_ids).items() if count > 1]


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
    """Reads the file's content. That no two utterances share an id is not checked, see `duplicates`.

    Raises:
        FeatureSetError: If it is not such a file, or does not fit the shards.
    """
    try:
        table = pq.read_table(io.BytesIO(content), columns=_SCHEMA.names).select(_SCHEMA.names)
        if not table.schema.equals(_SCHEMA):
            columns = ", ".join(f"{field.name} {field.type}" for field in table.schema)
            raise FeatureSetError(f"not an utterance index (its columns are {columns})")
        utterance_ids, speaker_ids, session_ids = (table[name].to_pylist() for name in _SCHEMA.names[:3])
    except (pa.ArrowException, KeyError, OSError, UnicodeDecodeError) as error:
        raise FeatureSetError(f"not an utterance index ({error})") from error
    if without_value := [name for name in _SCHEMA.names if table[name].null_count]:
        raise FeatureSetError(f"rows without {', '.join(without_value)}")
    shards, in_shard, num_frames = (
        table[name].to_numpy().astype(np.int64) for name in ("shard", "first_frame", "num_frames")
    )
    if len(shards) and not (shards[0] >= 0 and shards[-1] < len(frames_per_shard)):
        raise FeatureSetError(f"shards {shards[0]} to {shards[-1]}; the set has {len(frames_per_shard)}")
    if (shards[1:] < shards[:-1]).any():
        raise FeatureSetError("the utterances are not in the order of the shards")
    if len(num_frames) and num_frames.min() < 0:
        raise FeatureSetError(f"an utterance of {num_frames.min()} frames")
    ends = np.concatenate([[0], np.cumsum(num_frames)])
    shard_starts = ends[np.searchsorted(shards, np.arange(len(frames_per_shard) + 1))]
    if np.diff(shard_starts).tolist() != list(frames_per_shard):
        raise FeatureSetError("the utterances' frames do not add up to the shards'")
    first_frames = in_shard + shard_starts[shards]
    if (first_frames != ends[:-1]).any():
        raise FeatureSetError("first_frame is not where the utterance before ends")
    return UtteranceIndex(utterance_ids, speaker_ids, session_ids, shards, first_frames, num_frames)
