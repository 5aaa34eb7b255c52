"""Checking a feature set: every file against the manifest, every shard decoded."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from voxsrc import storage
from voxsrc.errors import FeatureSetError, NotFoundError
from voxsrc.feature_set.index import index_from_parquet
from voxsrc.feature_set.manifest import StoredShard, read_manifest, read_verified
from voxsrc.feature_set.shard import decode_shard, empty_levels

_THREADS = 4


def verify(uri: str, on_shard: Callable[[StoredShard], None] = lambda shard: None) -> list[str]:
    """Reads the whole set and checks it.

    Args:
        uri: The set's folder.
        on_shard: Called as each shard has been checked.

    Returns:
        What is wrong, one line a damaged file; empty if nothing is.

    Raises:
        NotFoundError: If there is no finished set.
        FeatureSetError: If the manifest itself is damaged.
    """
    manifest = read_manifest(uri)
    try:
        frames_per_shard = [shard.num_frames for shard in manifest.shards]
        index = index_from_parquet(read_verified(uri, manifest.index), frames_per_shard)
    except (FeatureSetError, NotFoundError) as error:
        return [f"{manifest.index.name}: {error}"]
    problems = [
        f"{manifest.index.name}: several utterances are called {utterance_id}"
        for utterance_id in index.duplicates()
    ]
    counted = {
        "num_utterances": (len(index), manifest.num_utterances),
        "num_speakers": (len(set(index.speaker_ids)), manifest.num_speakers),
        "num_frames": (sum(frames_per_shard), manifest.num_frames),
    }
    for name, (found, stated) in counted.items():
        if found != stated:
            problems.append(f"manifest.json: {name} is {stated}, the files have {found}")

    def check(shard: int) -> str | None:
        stored = manifest.shards[shard]
        first, last = np.searchsorted(index.shards, [shard, shard + 1])
        try:
            if last - first != stored.num_utterances:
                found = f"{manifest.index.name} has {last - first} utterances of it"
                raise FeatureSetError(f"{found}, manifest.json {stored.num_utterances}")
            frames = empty_levels(stored.num_frames, manifest.spec.num_mels)
            decode_shard(read_verified(uri, stored), index.num_frames[first:last], frames)
        except (FeatureSetError, NotFoundError) as error:
            return f"{stored.name}: {error}"
        finally:
            on_shard(stored)
        return None

    with ThreadPoolExecutor(_THREADS) as pool:
        problems += [problem for problem in pool.map(check, range(len(manifest.shards))) if problem]
    return problems


def folder_bytes(uri: str) -> int:
    """Bytes of all files of the set, the records that make it resumable included."""
    return sum(info.size for info in storage.list_files(uri))
