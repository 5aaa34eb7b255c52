"""The plan: which utterance's audio lies where, and which shard it goes to.

A folder `plan/` beside the shards: `plan.json` with the options, and `plan.parquet` with one row group a
shard, so that a worker reads its own shard's rows alone. It is made once; a restarted extraction reads it
instead of looking through the audio again.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import voxsrc
from feature_extractor.options import ExtractionOptions
from voxsrc import storage
from voxsrc.corpus import Utterance, read_utterance_list
from voxsrc.errors import CorpusError, FeatureSetError, NotFoundError
from voxsrc.feature_set.shard import RejectedUtterance
from voxsrc.features import FbankSpec
from voxsrc.sources import Matching, Member, Source, match_all_files, match_utterances, open_source

PLAN_VERSION = 1
# To be raised by any change that alters the bytes of a shard: older shards are then made again.
_EXTRACTION_VERSION = 1
_PLAN_JSON = "plan/plan.json"
_PLAN_ROWS = "plan/plan.parquet"
# About 20 MB and half a minute of one core for VoxCeleb2: little is lost to a preemption.
_UTTERANCES_PER_SHARD = 1000
# A small corpus is still split so that a few workers share it.
_FEW_SHARDS = 8
_FEWEST_UTTERANCES = 25

_SCHEMA = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("speaker_id", pa.string()),
        ("session_id", pa.string()),
        ("path", pa.string()),
        ("size", pa.int64()),
        ("offset", pa.int64()),
        ("stored_size", pa.int64()),
        ("method", pa.string()),
        ("crc32", pa.int64()),
    ]
)


@dataclass(frozen=True)
class PlannedUtterance:
    """One utterance and where its audio is."""

    utterance: Utterance
    member: Member

    def row(self) -> tuple[str, str, str, str, int, int, int, str, int]:
        """The values of the plan's columns."""
        u, m = self.utterance, self.member
        return (
            u.utterance_id,
            u.speaker_id,
            u.session_id,
            m.path,
            m.size,
            m.offset,
            m.stored_size,
            m.method,
            m.crc32,
        )


@dataclass(frozen=True)
class Plan:
    """How an extraction is divided.

    Attributes:
        options: What is extracted and how.
        list_sha256: Hash of the utterance list; empty without a list.
        num_utterances: Utterances whose audio was found.
        shard_sizes: Utterances of each shard.
        audio_bytes: Bytes of audio of each shard.
        rejected: Utterances without audio, and archive entries that are never read.
        notes: What a person should know of how list and audio were matched.
        rows_sha256: Hash of the stored rows; empty before they are stored.
    """

    options: ExtractionOptions
    list_sha256: str
    num_utterances: int
    shard_sizes: list[int]
    audio_bytes: list[int]
    rejected: list[RejectedUtterance]
    notes: list[str]
    rows_sha256: str = ""

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return len(self.shard_sizes)

    @property
    def num_missing(self) -> int:
        """Listed utterances without audio."""
        return sum(utterance.reason == "missing" for utterance in self.rejected)


def list_hash(list_uri: str | None) -> str:
    """SHA-256 of an utterance list's bytes; empty without a list."""
    return hashlib.sha256(storage.read_bytes(list_uri)).hexdigest() if list_uri else ""


def content_settings(options: ExtractionOptions, list_sha256: str) -> dict[str, Any]:
    """What decides the set's content, as JSON-ready values: two extractions with equal settings agree."""
    return {
        "audio": options.audio_uri,
        "list_sha256": list_sha256,
        "spec": options.spec.to_dict(),
        "encoding": options.encoding.to_dict(),
        "speeds": [str(float(speed)) for speed in options.speeds],
        "num_shards": options.num_shards,
        "min_duration_s": options.min_duration_s,
    }


def settings_difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The first setting that differs, for an error message; empty if none does."""
    for name, value in wanted.items():
        if found.get(name) != value:
            return f"{name} is {found.get(name)!r}, now {value!r} is asked for"
    return ""


def make_plan(options: ExtractionOptions) -> tuple[Plan, list[list[PlannedUtterance]]]:
    """Finds the audio of every listed utterance and divides it into shards of about equal audio.

    Returns:
        The plan and each shard's utterances.

    Raises:
        CorpusError: If the list or the audio is not as expected, or too many utterances have no audio.
        StorageError: If either cannot be read.
    """
    source = open_source(options.audio_uri)
    try:
        if options.list_uri is None:
            matching = match_all_files(source)
        else:
            matching = match_utterances(source, read_utterance_list(options.list_uri))
        rejected = _rejected(source, matching, options)
    finally:
        source.close()
    planned = [PlannedUtterance(utterance, member) for utterance, member in matching.pairs]
    # Archives are read from front to back; a folder's members have no offset and keep the list's order.
    planned.sort(key=lambda p: p.member.offset)
    shards = _divide(planned, options.num_shards or _default_num_shards(len(planned)))
    plan = Plan(
        options=options,
        list_sha256=list_hash(options.list_uri),
        num_utterances=len(planned),
        shard_sizes=[len(shard) for shard in shards],
        audio_bytes=[sum(p.member.size for p in shard) for shard in shards],
        rejected=rejected,
        notes=matching.notes,
    )
    return plan, shards


def _rejected(source: Source, matching: Matching, options: ExtractionOptions) -> list[RejectedUtterance]:
    missing = [
        RejectedUtterance(u.utterance_id, u.speaker_id, "missing", f"not in {source.uri}")
        for u in matching.missing
    ]
    num_listed = len(matching.pairs) + len(missing)
    if len(missing) / num_listed > options.max_rejected:
        raise CorpusError(
            f"{len(missing)} of {num_listed} listed utterances are not in {source.uri}, the first is "
            f"{missing[0].utterance_id}; complete the audio or the list, or raise --max-rejected "
            f"(now {options.max_rejected:g})"
        )
    # A folder cannot hold such paths, and to ask would walk all of it.
    unsafe = [] if matching.pairs[0][1].method == "file" else source.scan().unsafe_paths
    return missing + [
        RejectedUtterance(path, "", "unsafe_path", "the archive's entry leaves the archive; it is never read")
        for path in unsafe
    ]


def write_plan(output_uri: str, plan: Plan, shards: Sequence[Sequence[PlannedUtterance]]) -> None:
    """Writes the plan; `plan.json` last, so that a plan is whole or not there."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, _SCHEMA, compression="zstd") as writer:
        for shard in shards:
            columns = zip(*(planned.row() for planned in shard), strict=True)
            writer.write_table(pa.table(list(columns), schema=_SCHEMA), row_group_size=len(shard))
    # An earlier plan must not stand beside these rows if this process is killed here.
    storage.delete(storage.join(output_uri, _PLAN_JSON), missing_ok=True)
    storage.write_bytes(storage.join(output_uri, _PLAN_ROWS), buffer.getvalue())
    fields = {
        "plan_version": PLAN_VERSION,
        "voxsrc_version": voxsrc.__version__,
        "settings": content_settings(plan.options, plan.list_sha256),
        "list": plan.options.list_uri,
        "max_rejected": plan.options.max_rejected,
        "rows_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "num_utterances": plan.num_utterances,
        "shard_sizes": plan.shard_sizes,
        "audio_bytes": plan.audio_bytes,
        "rejected": [asdict(utterance) for utterance in plan.rejected],
        "notes": plan.notes,
    }
    content = json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
    storage.write_bytes(storage.join(output_uri, _PLAN_JSON), content.encode())


def read_plan(output_uri: str) -> Plan:
    """The plan of an extraction.

    Raises:
        NotFoundError: If there is none.
        FeatureSetError: If it is damaged or of another version.
    """
    uri = storage.join(output_uri, _PLAN_JSON)
    try:
        content = storage.read_bytes(uri)
    except NotFoundError as error:
        raise NotFoundError(f"{output_uri} has no plan; make one with `feature-extractor plan`") from error
    try:
        fields = json.loads(content)
        if fields["plan_version"] != PLAN_VERSION:
            raise FeatureSetError(
                f"{uri} has version {fields['plan_version']}, this program reads {PLAN_VERSION}"
            )
        settings = fields["settings"]
        return Plan(
            options=ExtractionOptions(
                audio_uri=settings["audio"],
                list_uri=fields["list"],
                spec=FbankSpec.from_dict(settings["spec"]),
                step_nat=settings["encoding"]["step_nat"],
                speeds=tuple(Fraction(speed) for speed in settings["speeds"]),
                num_shards=settings["num_shards"],
                min_duration_s=settings["min_duration_s"],
                max_rejected=fields["max_rejected"],
            ),
            list_sha256=settings["list_sha256"],
            num_utterances=fields["num_utterances"],
            shard_sizes=fields["shard_sizes"],
            audio_bytes=fields["audio_bytes"],
            rejected=[RejectedUtterance(**utterance) for utterance in fields["rejected"]],
            notes=fields["notes"],
            rows_sha256=fields["rows_sha256"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FeatureSetError(f"{uri} is not a plan ({error}); delete it and plan again") from error


class PlanRows:
    """The utterances of each shard of a plan, read as they are asked for.

    Raises:
        FeatureSetError: If the stored rows are not the plan's.
    """

    def __init__(self, output_uri: str, plan: Plan) -> None:
        uri = storage.join(output_uri, _PLAN_ROWS)
        content = storage.read_bytes(uri)
        if hashlib.sha256(content).hexdigest() != plan.rows_sha256:
            raise FeatureSetError(
                f"{uri} is damaged or of another plan; delete {storage.join(output_uri, _PLAN_JSON)} "
                "and run the same command again"
            )
        self._file = pq.ParquetFile(io.BytesIO(content))

    def shard(self, shard: int) -> list[PlannedUtterance]:
        """The utterances of one shard, in the order in which they are stored."""
        table = self._file.read_row_group(shard, columns=_SCHEMA.names)
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        return [PlannedUtterance(Utterance(*row[:3]), Member(*row[3:])) for row in rows]


def shard_key(plan: Plan, utterances: Sequence[PlannedUtterance]) -> str:
    """Hash of all that decides a shard's bytes: equal keys, equal shards."""
    settings = {**content_settings(plan.options, ""), "extraction_version": _EXTRACTION_VERSION}
    del settings["num_shards"]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for planned in utterances:
        digest.update(json.dumps(planned.row()).encode())
    return digest.hexdigest()


def _default_num_shards(num_utterances: int) -> int:
    few = min(_FEW_SHARDS, num_utterances // _FEWEST_UTTERANCES)
    return max(1, few, -(-num_utterances // _UTTERANCES_PER_SHARD))


def _divide(planned: list[PlannedUtterance], num_shards: int) -> list[list[PlannedUtterance]]:
    """Cuts the sequence where the audio's bytes come closest to equal parts; no shard is empty."""
    num_shards = min(num_shards, len(planned))
    total = sum(p.member.size for p in planned)
    shards: list[list[PlannedUtterance]] = [[]]
    cumulated = 0
    for position, utterance in enumerate(planned):
        boundary = total * len(shards) / num_shards
        left, shards_left = len(planned) - position, num_shards - len(shards)
        due = cumulated + utterance.member.size / 2 > boundary or left <= shards_left
        if shards[-1] and shards_left and due:
            shards.append([])
        shards[-1].append(utterance)
        cumulated += utterance.member.size
    return shards
