"""`manifest.json`: what a feature set is, how large, made of what, with every file's checksum."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from voxsrc import storage
from voxsrc.corpus import speed_copies
from voxsrc.errors import ConfigError, FeatureSetError, NotFoundError
from voxsrc.feature_set.encoding import Encoding
from voxsrc.features import FbankSpec

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
INDEX_NAME = "utterances.parquet"
REJECTED_NAME = "rejected.jsonl"
# What an extraction leaves before there is a manifest: its plan, then shards and their records.
PLAN_NAME = "plan/plan.json"
SHARD_FILE = re.compile(r"shard-[0-9]{5,}\.(json|lfb\.zst)")

_PCM16_BYTES = 2
# Sums of such numbers of frames are exact; no corpus comes near.
_MOST = 1 << 53
_DAMAGED_REMEDY = (
    "copy the set again, or delete the file and run the same extraction again, which makes it anew"
)


def shard_name(shard: int) -> str:
    """The file of a shard's frames."""
    return f"shard-{shard:05d}.lfb.zst"


def shard_record_name(shard: int) -> str:
    """The file that tells what a shard holds and was made from."""
    return f"shard-{shard:05d}.json"


@dataclass(frozen=True)
class StoredFile:
    """A file of the set: its name, bytes and SHA-256 (hexadecimal)."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class StoredShard(StoredFile):
    """A shard's file, with what it holds."""

    num_utterances: int
    num_frames: int


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says.

    Attributes:
        spec: The features' specification.
        encoding: How the features are stored.
        num_utterances: Utterances in the set.
        num_speakers: Distinct speakers; a speed-perturbed copy counts as one of its own.
        num_frames: Frames of all utterances.
        num_samples: Samples of all utterances at the spec's rate.
        shards: The shards, in order.
        index: `utterances.parquet`.
        num_rejected: How many utterances were left out, by reason.
        counts: Utterances that were resampled or averaged to mono, samples and values limited; see
            `ShardCounts`. `low_rate_utterances` is there only if it is known of all that were resampled.
        made_from: List, audio, options and code version.
    """

    spec: FbankSpec
    encoding: Encoding
    num_utterances: int
    num_speakers: int
    num_frames: int
    num_samples: int
    shards: list[StoredShard]
    index: StoredFile
    num_rejected: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    made_from: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Duration of the audio that the features stand for."""
        return self.num_samples / self.spec.sample_rate_hz

    @property
    def pcm16_bytes(self) -> int:
        """Bytes of the same audio as 16-bit samples."""
        return _PCM16_BYTES * self.num_samples

    @property
    def stored_bytes(self) -> int:
        """Bytes of shards and index."""
        return self.index.bytes + sum(shard.bytes for shard in self.shards)

    @property
    def content_sha256(self) -> str:
        """SHA-256 of what the features are, index and values, whatever way they came about."""
        parts = [self.index.sha256, *(shard.sha256 for shard in self.shards)]
        return hashlib.sha256(" ".join([*parts, str(self.encoding.to_dict())]).encode()).hexdigest()

    def to_json(self) -> bytes:
        """The file's content: the same bytes for the same set."""
        fields = {
            "format_version": FORMAT_VERSION,
            "fbank_spec": self.spec.to_dict(),
            "fbank_spec_hash": self.spec.hash,
            "encoding": self.encoding.to_dict(),
            "num_utterances": self.num_utterances,
            "num_speakers": self.num_speakers,
            "num_frames": self.num_frames,
            "num_samples": self.num_samples,
            "seconds": self.seconds,
            "bytes": self.stored_bytes,
            "pcm16_bytes": self.pcm16_bytes,
            "percent_of_pcm16": percent(self.stored_bytes, self.pcm16_bytes),
            "num_rejected": dict(sorted(self.num_rejected.items())),
            "counts": dict(sorted(self.counts.items())),
            "made_from": self.made_from,
            "index": asdict(self.index),
            "shards": [asdict(shard) for shard in self.shards],
        }
        return (json.dumps(fields, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Reads the file's content.

        Raises:
            FeatureSetError: If it is not a manifest of this format version.
        """
        try:
            fields = json.loads(content)
            version = fields["format_version"]
            if version != FORMAT_VERSION:
                raise FeatureSetError(
                    f"format version {version}; this version of voxsrc reads {FORMAT_VERSION}: read the set "
                    "with the version that wrote it, or extract the features again into another folder"
                )
            manifest = cls(
                spec=FbankSpec.from_dict(fields["fbank_spec"], "fbank_spec"),
                encoding=Encoding.from_dict(fields["encoding"]),
                num_utterances=fields["num_utterances"],
                num_speakers=fields["num_speakers"],
                num_frames=fields["num_frames"],
                num_samples=fields["num_samples"],
                shards=[StoredShard(**shard) for shard in fields["shards"]],
                index=StoredFile(**fields["index"]),
                num_rejected=fields["num_rejected"],
                counts=fields["counts"],
                made_from=fields["made_from"],
            )
            manifest._check_counts()
            speed_copies((), manifest.made_from)  # only to refuse what are no speeds
        except (
            AttributeError, ConfigError, KeyError, OverflowError, RecursionError, TypeError, ValueError
        ) as error:  # fmt: skip
            raise FeatureSetError(
                f"not a manifest ({type(error).__name__}: {error}); {_DAMAGED_REMEDY}"
            ) from error
        if manifest.spec.hash != fields["fbank_spec_hash"]:
            raise FeatureSetError(
                f"fbank_spec hashes to {manifest.spec.hash}, fbank_spec_hash says "
                f"{fields['fbank_spec_hash']}; {_DAMAGED_REMEDY}"
            )
        return manifest

    def _check_counts(self) -> None:
        """Raises ValueError, naming the field, where the numbers cannot be, or contradict each other."""
        totals = ("num_utterances", "num_speakers", "num_frames", "num_samples")
        _check_whole({name: getattr(self, name) for name in totals})
        _check_whole(self.num_rejected, "num_rejected.")
        _check_whole(self.counts, "counts.")
        files = [("index.", INDEX_NAME, self.index)]
        files += [(f"shards.{i}.", shard_name(i), shard) for i, shard in enumerate(self.shards)]
        for path, name, stored in files:
            values = asdict(stored)
            if values.pop("name") != name:
                raise ValueError(f"{path}name is {stored.name!r}; expected {name!r}")
            if type(values.pop("sha256")) is not str:
                raise ValueError(f"{path}sha256 is {stored.sha256!r}; expected text")
            _check_whole(values, path)
        for field_name in ("num_utterances", "num_frames"):
            total, stated = sum(getattr(s, field_name) for s in self.shards), getattr(self, field_name)
            if total != stated:
                raise ValueError(f"{field_name} is {stated}, the shards have {total}")


def read_manifest(uri: str) -> Manifest:
    """The manifest of the feature set at `uri`.

    Raises:
        NotFoundError: If there is nothing, something else, or an unfinished set; it says which.
        FeatureSetError: If the manifest is damaged or of another format.
    """
    manifest_uri = storage.join(uri, MANIFEST_NAME)
    try:
        return Manifest.from_json(storage.read_bytes(manifest_uri))
    except NotFoundError as error:
        raise NotFoundError(f"{uri} {_found_instead(uri)}") from error
    except FeatureSetError as error:
        raise FeatureSetError(f"{manifest_uri}: {error}") from error


def read_verified(set_uri: str, stored: StoredFile) -> bytes:
    """The content of a file of the set.

    Raises:
        FeatureSetError: If it is not the file that the manifest describes.
        NotFoundError: If it is not there.
    """
    uri = storage.join(set_uri, stored.name)
    content = storage.read_bytes(uri)
    if len(content) != stored.bytes or hashlib.sha256(content).hexdigest() != stored.sha256:
        raise FeatureSetError(
            f"{uri} is damaged: {len(content)} bytes, SHA-256 not as in the manifest ({stored.bytes} bytes); "
            "delete manifest.json and run the same extraction again: it makes only what is damaged"
        )
    return content


def _found_instead(uri: str) -> str:
    """What there is at a place without a manifest, and what to do about it."""
    place = uri.rstrip("/")
    if storage.is_remote(uri):
        is_file = bool(storage.name(uri)) and storage.exists(place)
        is_there = is_file or any(True for _ in storage.list_files(uri))
    else:
        path = Path(storage.local_path(uri))
        is_there, is_file = path.exists(), path.exists() and not path.is_dir()
    if is_file:
        return "is a file; expected the folder of a feature set"
    if not is_there:
        return "does not exist; expected the folder of a feature set: check the name"
    if storage.exists(storage.join(uri, PLAN_NAME)) or any(
        SHARD_FILE.fullmatch(storage.name(info.uri)) for info in storage.list_files(uri, recursive=False)
    ):
        return (
            f"is not a finished feature set: it has no {MANIFEST_NAME}; run the same extraction again to "
            "finish it"
        )
    return (
        f"is a folder without a feature set (no {MANIFEST_NAME}, no shards); expected the --output of an "
        "extraction: extract features of audio first"
    )


def _check_whole(counts: Mapping[str, Any], path: str = "") -> None:
    for name, count in counts.items():
        # bool is a subclass of int.
        if type(count) is not int or not 0 <= count <= _MOST:
            raise ValueError(f"{path}{name} is {count!r}; expected a whole number from 0 to {_MOST}")


def percent(part: int, whole: int) -> float:
    """100 · part / whole, 0 of nothing."""
    return 100.0 * part / whole if whole else 0.0
