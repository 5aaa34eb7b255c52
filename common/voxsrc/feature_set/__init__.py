"""The feature set: log-mel features of a corpus, quantised, compressed, indexed and checksummed.

A folder, local or in a bucket, with `manifest.json`, `utterances.parquet` and `shard-00000.lfb.zst` …,
each shard with the `shard-00000.json` that tells what it was made from. The manifest is written last: a
set is complete or it has no manifest.
"""

from voxsrc.feature_set.encoding import Encoding
from voxsrc.feature_set.manifest import Manifest, read_manifest
from voxsrc.feature_set.reader import FeatureSet

__all__ = ["Encoding", "FeatureSet", "Manifest", "read_manifest"]
