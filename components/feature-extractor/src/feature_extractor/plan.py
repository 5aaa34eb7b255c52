"""The plan: which utterance's audio lies where, and which shard it goes to.

A folder `plan/` beside the shards: `plan.json` with the options, and `plan.parquet` with one row group a
shard, so that a worker reads its own shard's rows alone. It is made once; a restarted extraction reads it
instead of looking through the audio again.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import voxsrc
from feature_extractor.options import ExtractionOptions
from voxsrc import storage
from voxsrc.corpus import Utterance
from voxsrc.errors import ConfigError, FeatureSetError, NotFoundError
from voxsrc.feature_set.manifest import PLAN_NAME
from voxsrc.feature_set.shard import RejectedUtterance
from voxsrc.features import FbankSpec
from voxsrc.sources import Member

# Rows of version 1 have no `source`, those of 1 and 2 no `stamp`.
_PLAN_VERSION = 3
_READ_VERSIONS = (1, 2, _PLAN_VERSION)
# To be raised by any change that alters the bytes of a shard: older shards are then made again.
_EXTRACTION_VERSION = 1
_PLAN_ROWS = "plan/plan.parquet"
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
        ("source", pa.int64()),
        ("stamp", pa.int64()),
    ]
)
_SOURCE_COLUMN = _SCHEMA.get_field_index("source")


@dataclass(frozen=True)
class PlannedUtterance:
    """One utterance and where its audio is."""

    utterance: Utterance
    member: Member

    def row(self) -> tuple[str | int, ...]:
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
            m.source,
            m.stamp,
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
    settings = {
        "audio": list(options.audio_uris) if _of_several(options) else options.audio_uris[0],
        "list_sha256": list_sha256,
        "spec": options.spec.to_dict(),
        "encoding": options.encoding.to_dict(),
        "speeds": [str(float(speed)) for speed in options.speeds],
        "num_shards": options.num_shards,
        "min_duration_s": options.min_duration_s,
    }
    # Sets of speakers that their folders name are as they were before there was another way.
    return settings if options.one_speaker is None else {**settings, "one_speaker": options.one_speaker}


def settings_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """In what two extractions' `content_settings` differ, for an error message; empty if in nothing."""
    different = [name for name in {**wanted, "one_speaker": None} if found.get(name) != wanted.get(name)]
    if "spec" in different and found["encoding"]["step_nat"] == wanted["encoding"]["step_nat"]:
        different = [name for name in different if name != "encoding"]  # it follows from the spec
    return "; ".join(_told_difference(name, found.get(name), wanted.get(name)) for name in different)


def _told_difference(name: str, found: Any, wanted: Any) -> str:
    if name == "list_sha256":
        if found and wanted:
            return "made from another list"
        return "made from a list, now none is given" if found else "made without a list, now one is given"
    if name == "spec":
        return f"features: {FbankSpec.from_dict(found).differences(FbankSpec.from_dict(wanted))}"
    if name == "encoding":
        name = next(field for field in wanted if found[field] != wanted[field])
        found, wanted = found[name], wanted[name]
    return f"{name} is {found!r}, now {wanted!r} is asked for"


def _of_several(options: ExtractionOptions) -> bool:
    return len(options.audio_uris) > 1


def write_plan(output_uri: str, plan: Plan, shards: Sequence[Sequence[PlannedUtterance]]) -> None:
    """Writes the plan; `plan.json` last, so that a plan is whole or not there."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, _SCHEMA, compression="zstd") as writer:
        for shard in shards:
            columns = zip(*(planned.row() for planned in shard), strict=True)
            writer.write_table(pa.table(list(columns), schema=_SCHEMA), row_group_size=len(shard))
    # An earlier plan must not stand beside these rows if this process is killed here.
    storage.delete(storage.join(output_uri, PLAN_NAME), missing_ok=True)
    storage.write_bytes(storage.join(output_uri, _PLAN_ROWS), buffer.getvalue())
    fields = {
        "plan_version": _PLAN_VERSION,
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
    storage.write_bytes(storage.join(output_uri, PLAN_NAME), content.encode())


def read_plan(output_uri: str) -> Plan:
    """The plan of an extraction.

    Raises:
        NotFoundError: If there is none.
        FeatureSetError: If it is damaged or of another version.
    """
    uri = storage.join(output_uri, PLAN_NAME)
    try:
        content = storage.read_bytes(uri)
    except NotFoundError as error:
        raise NotFoundError(f"{output_uri} has no plan; make one with `feature-extractor plan`") from error
    try:
        fields = json.loads(content)
        if fields["plan_version"] not in _READ_VERSIONS:
            raise FeatureSetError(
                f"{uri} has version {fields['plan_version']}, this program reads {_READ_VERSIONS[0]} to "
                f"{_PLAN_VERSION}; delete it and plan again, or use the program that made it"
            )
        settings = fields["settings"]
        audio = settings["audio"]
        return Plan(
            options=ExtractionOptions(
                audio_uris=(audio,) if isinstance(audio, str) else tuple(audio),
                list_uri=fields["list"],
                one_speaker=settings.get("one_speaker"),
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
    except (ConfigError, KeyError, TypeError, ValueError) as error:
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
                f"{uri} is damaged or of another plan; delete {storage.join(output_uri, PLAN_NAME)} "
                "and run the same command again"
            )
        self._file = pq.ParquetFile(io.BytesIO(content))

    def shard(self, shard: int, *, step: int = 1) -> list[PlannedUtterance]:
        """Every `step`-th of a shard's utterances, in the order in which they are stored."""
        table = self._file.read_row_group(shard)
        if step > 1:
            table = table.take(list(range(0, table.num_rows, step)))
        names = table.column_names[3:]
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        return [
            PlannedUtterance(Utterance(*row[:3]), Member(**dict(zip(names, row[3:], strict=True))))
            for row in rows
        ]


def shard_key(plan: Plan, utterances: Sequence[PlannedUtterance]) -> str:
    """Hash of all that decides a shard's bytes, as far as can be told without reading the audio.

    Stamps are no part of it: audio that was copied, fetched again, or mounted elsewhere would look as if it
    had changed, and what an interrupted extraction has finished would be lost. See `renewal`.
    """
    settings = {**content_settings(plan.options, ""), "extraction_version": _EXTRACTION_VERSION}
    del settings["num_shards"]
    settings.pop("one_speaker", None)  # which the rows have
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    num_columns = _SOURCE_COLUMN + _of_several(plan.options)
    for planned in utterances:
        digest.update(json.dumps(planned.row()[:num_columns]).encode())
    return digest.hexdigest()
