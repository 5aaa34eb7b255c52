import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora import tar_bytes, zip_bytes
from feature_extractor.options import ExtractionOptions
from feature_extractor.plan import PlanRows, read_plan, shard_key, write_plan
from feature_extractor.planning import make_plan
from voxsrc.errors import FeatureSetError
from voxsrc.features import preset
from voxsrc.speeds import parse_speeds


def members(sizes: list[int]) -> dict[str, bytes]:
    """Files of these sizes; a plan does not look into them."""
    return {f"id{n % 3}/s/{n:04d}.wav": bytes(size) for n, size in enumerate(sizes)}


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=60), st.integers(1, 70))
@settings(max_examples=150)
def test_each_utterance_goes_to_one_shard_and_the_shards_are_balanced(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], num_shards: int
) -> None:
    archive = tmp_path_factory.getbasetemp() / "sizes.zip"
    archive.write_bytes(zip_bytes(members(sizes)))
    plan, shards = make_plan(ExtractionOptions(audio_uris=(str(archive),), num_shards=num_shards))
    planned = [utterance for shard in shards for utterance in shard]
    assert [p.member.path for p in planned] == list(members(sizes))
    assert [p.utterance.utterance_id for p in planned] == list(members(sizes))
    assert plan.num_shards == len(shards) == min(num_shards, len(sizes))
    assert all(shards)
    assert plan.shard_sizes == [len(shard) for shard in shards]
    assert plan.audio_bytes == [sum(p.member.size for p in shard) for shard in shards]
    assert sum(plan.audio_bytes) == sum(sizes)
    assert max(plan.audio_bytes) <= sum(sizes) / plan.num_shards + max(sizes)


@pytest.mark.parametrize(
    ("num_utterances", "num_shards"),
    [(1, 1), (24, 1), (49, 1), (50, 2), (199, 7), (200, 8), (8_000, 8), (8_001, 9), (10_500, 11)],
)
def test_number_of_shards_by_default(tmp_path: Path, num_utterances: int, num_shards: int) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes(members([0] * num_utterances)))
    plan, _ = make_plan(ExtractionOptions(audio_uris=(str(tmp_path / "a.zip"),)))
    assert plan.num_shards == num_shards


def full_options(folder: Path) -> ExtractionOptions:
    (folder / "a.tar").write_bytes(tar_bytes({"../evil.wav": b"", **members([10, 20, 30, 40])}))
    listed = "".join(f"ann {path}\n" for path in [*members([0] * 4), "gone.wav"])
    (folder / "list.txt").write_text(listed)
    return ExtractionOptions(
        audio_uris=(str(folder / "a.tar"),),
        list_uri=str(folder / "list.txt"),
        spec=preset("kaldi80", dither=1.0),
        step_nat=0.1,
        speeds=(Fraction(9, 10), Fraction("1.125")),
        num_shards=3,
        min_duration_s=0.25,
        max_rejected=0.5,
    )


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan, shards = make_plan(full_options(tmp_path))
    write_plan(str(tmp_path / "out"), plan, shards)
    again = read_plan(str(tmp_path / "out"))
    assert again.options == plan.options
    assert (again.shard_sizes, again.audio_bytes) == (plan.shard_sizes, plan.audio_bytes)
    assert again.rejected == plan.rejected
    assert [(r.utterance_id, r.reason) for r in again.rejected] == [
        ("gone.wav", "missing"), ("../evil.wav", "unsafe_path"),
    ]  # fmt: skip
    assert (again.num_utterances, again.num_missing, again.num_shards) == (4, 1, 3)
    rows = PlanRows(str(tmp_path / "out"), again)
    assert [rows.shard(shard) for shard in range(3)] == shards


def test_a_plan_of_another_version_is_refused(tmp_path: Path) -> None:
    plan, shards = make_plan(full_options(tmp_path))
    write_plan(str(tmp_path / "out"), plan, shards)
    file = tmp_path / "out/plan/plan.json"
    file.write_text(file.read_text().replace('"plan_version": 3', '"plan_version": 99'))
    with pytest.raises(
        FeatureSetError, match=r"plan\.json has version 99, this program reads 1 to 3; delete it"
    ):
        read_plan(str(tmp_path / "out"))


def test_a_shards_key_depends_on_all_that_decides_its_bytes_and_on_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes(members([10, 20, 30])))
    (tmp_path / "b.tar").write_bytes(tar_bytes(members([10, 20, 30])))

    def keys(audio: str = "a.tar", **changes: object) -> list[str]:
        options = ExtractionOptions(audio_uris=(str(tmp_path / audio),), **changes)  # type: ignore[arg-type]
        plan, shards = make_plan(options)
        return [shard_key(plan, shard) for shard in shards]

    [key] = keys()
    for same in ({"max_rejected": 0.5}, {"num_shards": 1}):
        assert keys(**same) == [key]
    different = [
        keys("b.tar"),
        keys(step_nat=0.1),
        keys(speeds=(Fraction(9, 10),)),
        keys(min_duration_s=0.2),
        keys(spec=preset("lfb40", num_mels=41)),
        keys(num_shards=3),
    ]
    found = [key, *(other for others in different for other in others)]
    assert len(set(found)) == len(found) == 9


def test_a_shards_key_does_not_depend_on_stamps(tmp_path: Path) -> None:
    """An extraction is continued on a copy of its audio, whose times are others."""
    (tmp_path / "a.tar").write_bytes(tar_bytes(members([10, 20, 30])))
    found = set()
    for mtime in (1_000, 2_000):
        os.utime(tmp_path / "a.tar", (mtime, mtime))
        plan, [shard] = make_plan(ExtractionOptions(audio_uris=(str(tmp_path / "a.tar"),)))
        found.add((shard_key(plan, shard), shard[0].member.stamp))
    (key, stamp), (again, later) = found
    assert key == again
    assert stamp != later


def test_a_shards_key_depends_on_the_source_of_each_utterance(tmp_path: Path) -> None:
    audio = ("a.tar", "b.tar", "c.tar")
    for name, session in zip(audio, "xyz", strict=True):
        (tmp_path / name).write_bytes(tar_bytes({f"id0/{session}/1.wav": bytes(10)}))
    uris = tuple(str(tmp_path / name) for name in audio)
    plan, [shard] = make_plan(ExtractionOptions(audio_uris=uris))
    assert [planned.member.source for planned in shard] == [0, 1, 2]
    elsewhere = [*shard[:2], replace(shard[2], member=replace(shard[2].member, source=1))]
    other_names = replace(plan, options=replace(plan.options, audio_uris=(*uris[:2], "d.tar")))
    keys = [shard_key(plan, shard), shard_key(plan, elsewhere), shard_key(other_names, shard)]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    ("text", "speeds"),
    [
        ("", ()),
        ("0.9,1.1", (Fraction(9, 10), Fraction(11, 10))),
        (" 1.1 , 1, 1.0,0.9,", (Fraction(11, 10), Fraction(9, 10))),
    ],
)
def test_speeds(text: str, speeds: tuple[Fraction, ...]) -> None:
    assert parse_speeds(text) == speeds
