"""Makes small finished feature sets of random features, without any audio."""

import hashlib
from pathlib import Path

import numpy as np

from voxsrc import storage
from voxsrc.feature_set import Encoding, Manifest
from voxsrc.feature_set.index import index_to_parquet
from voxsrc.feature_set.manifest import INDEX_NAME, MANIFEST_NAME, StoredFile, StoredShard, shard_name
from voxsrc.feature_set.shard import ShardWriter
from voxsrc.features import FbankSpec


def random_features(num_frames: int, seed: int, spec: FbankSpec | None = None) -> np.ndarray:
    """Smooth values between silence and loud speech, (T, F) float32 in nat."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.6, (num_frames, (spec or FbankSpec()).num_mels))
    return np.clip(np.cumsum(steps, axis=0) - 4, -13.8, 9).astype(np.float32)


def make_feature_set(
    uri: str | Path, lengths: list[list[int]], *, step_nat: float = 0.2, spec: FbankSpec | None = None
) -> dict[str, np.ndarray]:
    """Writes a set with these numbers of frames by shard; returns the features by utterance id."""
    spec = spec or FbankSpec()
    encoding = Encoding.for_spec(spec, step_nat)
    features, records = {}, []
    for shard, shard_lengths in enumerate(lengths):
        writer = ShardWriter(encoding, key=f"key-{shard}")
        for position, num_frames in enumerate(shard_lengths):
            speaker, session = f"id{position % 3}", f"s{position % 2}"
            utterance_id = f"{speaker}/{session}/{shard}-{position}.wav"
            features[utterance_id] = random_features(num_frames, seed=1000 * shard + position, spec=spec)
            num_samples = num_frames * spec.hop_samples + 240
            writer.add(utterance_id, speaker, session, features[utterance_id], num_samples)
        records.append(writer.write(str(uri), shard))
    index = index_to_parquet(records)
    storage.write_bytes(storage.join(str(uri), INDEX_NAME), index)
    manifest = Manifest(
        spec=spec,
        encoding=encoding,
        num_utterances=len(features),
        num_speakers=len({utterance_id.split("/")[0] for utterance_id in features}),
        num_frames=sum(map(len, features.values())),
        num_samples=sum(record.num_samples for record in records),
        shards=[
            StoredShard(shard_name(i), r.num_bytes, r.sha256, len(r.utterances), r.num_frames)
            for i, r in enumerate(records)
        ],
        index=StoredFile(INDEX_NAME, len(index), hashlib.sha256(index).hexdigest()),
    )
    storage.write_bytes(storage.join(str(uri), MANIFEST_NAME), manifest.to_json())
    return features
