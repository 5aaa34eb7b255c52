"""Feature sets whose own checksums hold, but whose manifest or index says what cannot be."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_sets import make_feature_set
from voxsrc.errors import ConfigError, FeatureSetError
from voxsrc.feature_set import FeatureSet, Manifest
from voxsrc.feature_set.index import index_from_parquet
from voxsrc.feature_set.shard import empty_levels
from voxsrc.feature_set.verification import verify
from voxsrc.features import FbankSpec

LENGTHS = [[30, 20], [40], [10, 25]]
Columns = dict[str, list[Any]]


@pytest.fixture
def features(tmp_path: Path) -> Path:
    make_feature_set(tmp_path / "set", LENGTHS)
    return tmp_path / "set"


def change_manifest(features: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = features / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def change_index(features: Path, change: Callable[[Columns], object], *, typed: bool = True) -> None:
    """Writes another index, whose checksum the manifest has."""
    path = features / "utterances.parquet"
    table = pq.read_table(path)
    columns = table.to_pydict()
    change(columns)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=table.schema if typed else None), buffer)
    path.write_bytes(buffer.getvalue())
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    change_manifest(features, lambda m: m["index"].update(bytes=path.stat().st_size, sha256=sha256))


def put(column: str, *values: Any) -> Callable[[Columns], object]:
    """Replaces a column's first values."""

    def change(columns: Columns) -> None:
        columns[column][: len(values)] = values

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("shard", -1), "shards -1 to 2; the set has 3"),
        (put("shard", 0, 0, 1, 2, 1 << 30), "shards 0 to 1073741824; the set has 3"),
        (put("shard", 1 << 30), "not in the order of the shards"),
        (put("num_frames", 51, -1), "an utterance of -1 frames"),
        (put("num_frames", 31, 20), "do not add up"),
        (put("first_frame", 7), "first_frame is not where"),
        (put("first_frame", 0, 20), "first_frame is not where"),
        (put("num_frames", None), "rows without num_frames"),
        (put("utterance_id", None), "rows without utterance_id"),
    ],
)
def test_an_index_that_cannot_be_is_refused(
    features: Path, change: Callable[[Columns], object], message: str
) -> None:
    change_index(features, change)
    for mode in ("by_shard", "ram"):
        with pytest.raises(FeatureSetError, match=f"utterances.parquet: .*{message}"):
            FeatureSet.open(str(features), mode=mode)
    [problem] = verify(str(features))
    assert problem.startswith("utterances.parquet: ")


def test_an_index_of_other_columns_is_refused(features: Path) -> None:
    change_index(features, lambda c: c.update(num_frames=list(map(str, c["num_frames"]))), typed=False)
    with pytest.raises(FeatureSetError, match=r"its columns are .*num_frames string"):
        FeatureSet.open(str(features))
    change_index(features, lambda c: c.pop("session_id"), typed=False)
    with pytest.raises(FeatureSetError, match=r"not an utterance index.*session_id"):
        FeatureSet.open(str(features))


def test_names_that_are_no_text_are_refused() -> None:
    table = pa.table(
        {
            "utterance_id": pa.array([b"\xff"]).cast(pa.string(), safe=False), "speaker_id": ["a"],
            "session_id": ["s"], "shard": pa.array([0], pa.int32()), "first_frame": [0],
            "num_frames": pa.array([3], pa.int32()),
        }
    )  # fmt: skip
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    with pytest.raises(FeatureSetError, match="not an utterance index"):
        index_from_parquet(buffer.getvalue(), [3])


def test_two_utterances_of_one_id_are_found_where_they_matter(features: Path) -> None:
    change_index(features, lambda c: put("utterance_id", c["utterance_id"][1])(c))
    again = FeatureSet.open(str(features)).index.utterance_ids[1]
    assert verify(str(features)) == [f"utterances.parquet: several utterances are called {again}"]
    with pytest.raises(FeatureSetError, match=f"several utterances called {again}"):
        FeatureSet.open(str(features)).read(again)


def test_verify_counts_each_shards_utterances(features: Path) -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["shards"][0]["num_utterances"] += 1
        fields["shards"][1]["num_utterances"] -= 1

    change_manifest(features, change)
    problems = verify(str(features))
    assert problems == [
        "shard-00000.lfb.zst: utterances.parquet has 2 utterances of it, manifest.json 3",
        "shard-00001.lfb.zst: utterances.parquet has 1 utterances of it, manifest.json 0",
    ]


@pytest.mark.parametrize(
    ("where", "fields", "message"),
    [
        ((), {"num_frames": "125"}, "num_frames is '125'; expected a whole number"),
        ((), {"num_frames": -1}, "num_frames is -1"),
        ((), {"num_frames": 130}, "num_frames is 130, the shards have 125"),
        ((), {"num_utterances": 6}, "num_utterances is 6, the shards have 5"),
        ((), {"num_samples": 1.5}, "num_samples"),
        ((), {"num_speakers": True}, "num_speakers is True"),
        ((), {"counts": None}, "not a manifest"),
        ((), {"counts": {"resampled_utterances": "7"}}, "counts.resampled_utterances is '7'"),
        ((), {"num_rejected": {"silent": None}}, "num_rejected.silent is None"),
        ((), {"shards": []}, "the shards have 0"),
        (("shards", 0), {"num_frames": None}, "shards.0.num_frames is None"),
        (("shards", 1), {"num_frames": 10**30}, "shards.1.num_frames"),
        (("shards", 1), {"bytes": "x"}, "shards.1.bytes is 'x'"),
        (("shards", 2), {"name": "../set/shard-00002.lfb.zst"}, "shards.2.name is '../set"),
        (("shards", 2), {"sha256": 0}, "shards.2.sha256 is 0"),
        (("index",), {"name": "/etc/hostname"}, "index.name is '/etc/hostname'"),
        (("encoding",), {"step_nat": float("nan")}, "encoding .* a step above 0"),
        (("encoding",), {"offset_nat": float("inf")}, "encoding .* finite"),
        (("encoding",), {"step_nat": 10**400}, "not a manifest"),
        (("fbank_spec",), {"num_mels": 400_000_000}, "num_mels is 400000000; expected at most 512"),
        (("fbank_spec",), {"n_fft": 1 << 40}, "n_fft is 1099511627776; expected at most"),
    ],
)
def test_a_manifest_of_impossible_numbers_is_refused(
    features: Path, where: tuple[Any, ...], fields: dict[str, Any], message: str
) -> None:
    def change(manifest: Any) -> None:
        for key in where:
            manifest = manifest[key]
        manifest.update(fields)

    change_manifest(features, change)
    for read in (FeatureSet.open, verify):
        with pytest.raises(FeatureSetError, match=f"manifest.json: .*{message}"):
            read(str(features))


def test_a_manifest_without_end_is_refused() -> None:
    with pytest.raises(FeatureSetError, match="not a manifest"):
        Manifest.from_json(b"[" * 1_000_000)


@pytest.mark.parametrize("num_frames", [1 << 52, 1 << 60])
def test_frames_that_no_memory_holds(num_frames: int) -> None:
    with pytest.raises(FeatureSetError, match=r"GB, more than there is memory; .* mode='mmap'"):
        empty_levels(num_frames, 512)


@pytest.mark.parametrize(
    "fields",
    [
        {"hop_ms": float("inf")}, {"window_ms": 1e308}, {"sample_rate_hz": 1 << 40}, {"num_mels": 513},
        {"waveform_scale": 1e300}, {"log_floor": float("inf")}, {"n_fft": 1 << 16},
    ],
)  # fmt: skip
def test_a_spec_beyond_all_measure_is_refused(fields: dict[str, Any]) -> None:
    [name] = fields
    with pytest.raises(ConfigError, match=rf"FbankSpec\.{name} is .*; expected (at most|a finite)"):
        FbankSpec(**fields)


def test_a_wide_spec_is_taken() -> None:
    FbankSpec(sample_rate_hz=192_000, n_fft=1 << 13, num_mels=256, high_hz=96_000.0)
