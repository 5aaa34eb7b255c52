"""What of an extraction must be made again because its audio has changed, and what a resumed one should know.

A shard's key says which bytes of which files it is made from, but not what they were: that a file was changed
to another of equal size, only its stamp tells (see `voxsrc.sources.Member`), which the plan keeps. Whoever
plans anew with `--overwrite` thus makes again what has changed. For this to hold however often an extraction
is killed, the plan never has a later stamp than the audio that a finished shard was made from.
"""

import contextlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from feature_extractor.plan import Plan, PlannedUtterance, PlanRows, shard_key
from voxsrc import storage
from voxsrc.errors import CorpusError, FeatureSetError, NotFoundError, StorageError
from voxsrc.feature_set.shard import ShardRecord
from voxsrc.sources import UNKNOWN_STAMP, Member, Readable, open_sources

_RECORD = re.compile(r"shard-([0-9]{5,})\.json")
# To look at each of a million files in a bucket takes minutes; what happens to a whole corpus shows in these.
_LOOKED_AT = 2_000
_AT_A_TIME = 16


def settle(
    output_uri: str,
    begun: Plan | None,
    plan: Plan,
    shards: Sequence[Sequence[PlannedUtterance]],
    *,
    overwrite: bool,
) -> list[list[PlannedUtterance]]:
    """Discards finished shards that a new plan makes again; to be called before the plan is written.

    Those are shards of other utterances or options and, with `overwrite`, also those whose audio may have
    changed since they were made, or from which utterances were rejected.

    Args:
        output_uri: Where the extraction is.
        begun: The stored plan that the new one replaces, if any.
        plan: The new plan.
        shards: The utterances of each of its shards.
        overwrite: Otherwise finished shards are kept whatever the stamps say.

    Returns:
        The utterances of each shard, with the stamps to be stored.
    """
    records = _records(output_uri)
    rows = _rows(output_uri, begun)
    settled: list[list[PlannedUtterance]] = []
    kept = []
    for number, shard in enumerate(shards):
        if number not in records:
            settled.append(list(shard))
            continue
        if begun is None or rows is None:  # made from the like of this plan perhaps, nobody knows when
            before, same = _without_stamps(shard), True
        else:
            before = rows.shard(number) if number < begun.num_shards else []
            same = shard_key(begun, before) == shard_key(plan, shard)
        if same and (not overwrite or _is_unchanged(before, shard)):
            kept.append(number)
            settled.append(list(shard) if overwrite else before)
        else:
            settled.append(list(shard))
    if overwrite:
        kept = _without_rejected(records, kept)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        stale = [records[number] for number in sorted(records.keys() - set(kept))]
        list(pool.map(lambda uri: storage.delete(uri, missing_ok=True), stale))
    return settled


def changes_since_planned(output_uri: str, plan: Plan) -> str:
    """In words, that audio has other stamps than when it was planned; empty if none is known to have.

    Of many files some are looked at, spread over all.
    """
    rows = PlanRows(output_uri, plan)
    step = -(-plan.num_utterances // _LOOKED_AT) or 1
    members = [
        planned.member
        for shard in range(plan.num_shards)
        for planned in rows.shard(shard, step=step)
        if planned.member.stamp != UNKNOWN_STAMP
    ]
    try:
        with (
            contextlib.closing(open_sources(plan.options.audio_uris)) as source,
            ThreadPoolExecutor(_AT_A_TIME) as pool,
        ):
            stamps = pool.map(lambda member: _stamp_now(source, member), members)
            changed = [m.path for m, stamp in zip(members, stamps, strict=True) if stamp != m.stamp]
    except (CorpusError, StorageError):
        # Finished shards need no audio, and whoever reads it for the others will say what is wrong.
        return ""
    if not changed:
        return ""
    return (
        f"the audio of {len(changed):,} utterances has changed since it was planned, or was copied, or is "
        f"gone ({len(members):,} of {plan.num_utterances:,} were looked at; the first is {changed[0]}); "
        "finished shards are kept. Unless the copies are equal, run again with --overwrite, which makes anew "
        "what has changed"
    )


def _records(output_uri: str) -> dict[int, str]:
    """The URIs of all shards' records, by the shards' numbers."""
    try:
        found = [info.uri for info in storage.list_files(output_uri, recursive=False)]
    except NotFoundError:  # a folder that is not there yet
        return {}
    matched = ((_RECORD.fullmatch(storage.name(uri)), uri) for uri in found)
    return {int(match[1]): uri for match, uri in matched if match}


def _rows(output_uri: str, begun: Plan | None) -> PlanRows | None:
    if begun is None:
        return None
    try:
        return PlanRows(output_uri, begun)
    except (NotFoundError, FeatureSetError):  # damaged, or another plan was about to be written
        return None


def _without_stamps(shard: Sequence[PlannedUtterance]) -> list[PlannedUtterance]:
    return [replace(p, member=replace(p.member, stamp=UNKNOWN_STAMP)) for p in shard]


def _is_unchanged(before: Sequence[PlannedUtterance], now: Sequence[PlannedUtterance]) -> bool:
    """Whether each file is known to be what it was; those with a checksum are, as the shards' keys agree."""
    return all(
        new.member.crc32 >= 0 or old.member.stamp == new.member.stamp != UNKNOWN_STAMP
        for old, new in zip(before, now, strict=True)
    )


def _without_rejected(records: dict[int, str], numbers: Sequence[int]) -> list[int]:
    """Those of the shards from which no utterance was rejected."""
    contents = storage.read_many((records[number] for number in numbers), max_workers=_AT_A_TIME)
    return [number for number, content in zip(numbers, contents, strict=True) if _has_all(content)]


def _has_all(content: bytes) -> bool:
    try:
        return not ShardRecord.from_json(content).rejected
    except FeatureSetError:  # its shard counts as not made in any case
        return False


def _stamp_now(source: Readable, member: Member) -> int:
    try:
        return source.stamp(member)
    except NotFoundError:
        return UNKNOWN_STAMP
