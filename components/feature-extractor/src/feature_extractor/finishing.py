"""The end of an extraction: index, list of rejected utterances and, last, the manifest."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import voxsrc
from feature_extractor.plan import Plan, PlanRows, content_settings, read_plan, shard_key
from voxsrc import storage
from voxsrc.errors import CorpusError, FeatureSetError
from voxsrc.feature_set.index import index_to_parquet
from voxsrc.feature_set.manifest import (
    INDEX_NAME,
    MANIFEST_NAME,
    REJECTED_NAME,
    SHARD_FILE,
    Manifest,
    StoredFile,
    StoredShard,
    shard_name,
    shard_record_name,
)
from voxsrc.feature_set.shard import RejectedUtterance, ShardRecord, valid_record

_NAMED = 5


def finish(output_uri: str) -> Manifest:
    """Writes the index and the manifest of an extraction whose shards are all made.

    Raises:
        FeatureSetError: If shards are missing or damaged, or no utterance is left.
        CorpusError: If more utterances were rejected than allowed.
    """
    plan = read_plan(output_uri)
    records = _read_records(output_uri, plan)
    rejected = plan.rejected + [utterance for record in records for utterance in record.rejected]
    lines = "".join(json.dumps(asdict(utterance), ensure_ascii=False) + "\n" for utterance in rejected)
    storage.write_bytes(storage.join(output_uri, REJECTED_NAME), lines.encode())
    _check_rejected(output_uri, plan, rejected)
    index = index_to_parquet(records)
    storage.write_bytes(storage.join(output_uri, INDEX_NAME), index)
    _delete_superseded(output_uri, plan.num_shards)
    manifest = _manifest(plan, records, rejected, index)
    storage.write_bytes(storage.join(output_uri, MANIFEST_NAME), manifest.to_json())
    return manifest


def _read_records(output_uri: str, plan: Plan) -> list[ShardRecord]:
    stored = {storage.name(info.uri): info for info in storage.list_files(output_uri, recursive=False)}
    names = [shard_record_name(shard) for shard in range(plan.num_shards)]
    missing = [shard for shard, name in enumerate(names) if name not in stored]
    if missing:
        raise FeatureSetError(f"{_these(missing)} not made yet; run `feature-extractor extract` for them")
    rows = PlanRows(output_uri, plan)
    records, stale = [], []
    for shard, content in enumerate(storage.read_many(storage.join(output_uri, name) for name in names)):
        record = valid_record(content, shard_key(plan, rows.shard(shard)), stored.get(shard_name(shard)))
        if record is None:
            stale.append(shard)
        else:
            records.append(record)
    if stale:
        raise FeatureSetError(
            f"{_these(stale)} damaged or not as planned; run `feature-extractor extract` to make them again"
        )
    return records


def _these(shards: Sequence[int]) -> str:
    named = ", ".join(map(str, shards[:_NAMED])) + (", …" if len(shards) > _NAMED else "")
    return f"{len(shards)} shard(s) ({named}) are"


def _check_rejected(output_uri: str, plan: Plan, rejected: Sequence[RejectedUtterance]) -> None:
    utterances = [utterance for utterance in rejected if utterance.reason != "unsafe_path"]
    num_rejected, num_all = len(utterances), plan.num_utterances + plan.num_missing
    if num_rejected == num_all or num_rejected / num_all > plan.options.max_rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(_by_reason(rejected).items()))
        raise CorpusError(
            f"{num_rejected} of {num_all} utterances were rejected ({reasons}), the first is "
            f"{utterances[0].utterance_id} ({utterances[0].detail}); they are listed in "
            f"{storage.join(output_uri, REJECTED_NAME)}. Mend or unlist them and run again with "
            f"--overwrite, or allow them with --max-rejected (now {plan.options.max_rejected:g}); what was "
            "extracted is kept"
        )


def _by_reason(rejected: Sequence[RejectedUtterance]) -> Counter[str]:
    return Counter(utterance.reason for utterance in rejected)


def _delete_superseded(output_uri: str, num_shards: int) -> None:
    """Deletes shards beyond the last, left by an earlier extraction into more of them."""
    expected = {name(shard) for shard in range(num_shards) for name in (shard_name, shard_record_name)}
    for info in storage.list_files(output_uri, recursive=False):
        name = storage.name(info.uri)
        if SHARD_FILE.fullmatch(name) and name not in expected:
            storage.delete(info.uri, missing_ok=True)


def _manifest(
    plan: Plan, records: Sequence[ShardRecord], rejected: Sequence[RejectedUtterance], index: bytes
) -> Manifest:
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record.counts.to_dict())
    if any(r.counts.resampled_utterances and r.counts.low_rate_utterances is None for r in records):
        counts.pop("low_rate_utterances", None)  # an earlier version began the extraction
    speakers = {utterance.speaker_id for record in records for utterance in record.utterances}
    return Manifest(
        spec=plan.options.spec,
        encoding=plan.options.encoding,
        num_utterances=sum(len(record.utterances) for record in records),
        num_speakers=len(speakers),
        num_frames=sum(record.num_frames for record in records),
        num_samples=sum(record.num_samples for record in records),
        shards=[
            StoredShard(
                shard_name(shard), record.num_bytes, record.sha256, len(record.utterances), record.num_frames
            )
            for shard, record in enumerate(records)
        ],
        index=StoredFile(INDEX_NAME, len(index), hashlib.sha256(index).hexdigest()),
        num_rejected=_by_reason(rejected),
        counts=counts,
        made_from={
            **content_settings(plan.options, plan.list_sha256),
            "list": plan.options.list_uri,
            "voxsrc_version": voxsrc.__version__,
            "commit": os.environ.get("VOXSRC_COMMIT", ""),
        },
    )
