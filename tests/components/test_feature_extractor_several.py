"""One feature set of several folders and archives."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from commands import NUM_SHARDS, Command, contents, extractor_options, identities
from corpora import Corpus, archive_bytes, split_in_parts, tar_bytes, write_files, zip_bytes
from voxsrc import storage
from voxsrc.cli import main
from voxsrc.feature_set import FeatureSet, read_manifest
from voxsrc.feature_set.verification import verify


def shares(corpus: Corpus) -> list[dict[str, bytes]]:
    """Three thirds of the corpus, in the list's order."""
    items = list(corpus.members.items())
    return [dict(items[:9]), dict(items[9:16]), dict(items[16:])]


@pytest.fixture
def sources(corpus: Corpus, tmp_path: Path) -> list[str]:
    """A zip, a compressed tar in parts, and a folder; each holds its third below another folder."""
    first, second, third = shares(corpus)
    parts = split_in_parts(
        "b_part", tar_bytes({f"wav/{path}": data for path, data in second.items()}, "gz"), 3
    )
    files = {"a.zip": zip_bytes(first), **parts}
    write_files(tmp_path / "in", files | {f"c/{path}": data for path, data in third.items()})
    return [str(tmp_path / "in" / name) for name in ("a.zip", "b_partab", "c")]


def options_of(corpus: Corpus, sources: list[str], output: Path) -> list[str]:
    _, _, *others = extractor_options(corpus, output)
    return [*(argument for source in sources for argument in ("--audio", source)), *others]


def shards_and_index(output: Path) -> dict[str, bytes]:
    """The files whose bytes are what the set holds, not how it was made."""
    return {name: data for name, data in contents(output).items() if name.endswith((".zst", ".parquet"))
            and not name.startswith("plan/")}  # fmt: skip


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_bytes_are_those_of_one_folder(
    corpus: Corpus,
    finished: Path,
    sources: list[str],
    tmp_path: Path,
    feature_extractor: Command,
    num_workers: int,
) -> None:
    output = tmp_path / "set"
    outcome = feature_extractor("run", *options_of(corpus, sources, output), "--num-workers", num_workers)
    assert outcome.code == 0
    assert outcome.output.splitlines()[:5] == [
        f"looking for the audio in {', '.join(sources)}",
        f"note: {sources[0]}: 9 of the 24 listed utterances",
        f"note: {sources[1]}: 7 of the 24 listed utterances",
        f"note: {sources[1]}: the list's paths are found below wav/",
        f"note: {sources[2]}: 8 of the 24 listed utterances",
    ]
    assert shards_and_index(output) == shards_and_index(finished)
    assert len(shards_and_index(output)) == NUM_SHARDS + 1
    assert verify(str(output)) == []


def test_manifest_and_plan_name_the_source_of_each(
    corpus: Corpus,
    sources: list[str],
    tmp_path: Path,
    feature_extractor: Command,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "set"
    assert feature_extractor("run", *options_of(corpus, sources, output), "--num-workers", 1).code == 0
    assert read_manifest(str(output)).made_from["audio"] == sources
    plan = json.loads((output / "plan/plan.json").read_text())
    assert (plan["plan_version"], plan["settings"]["audio"]) == (3, sources)
    rows = pq.read_table(output / "plan/plan.parquet")
    named = dict(zip(rows["utterance_id"].to_pylist(), rows["source"].to_pylist(), strict=True))
    assert named == {path: source for source, share in enumerate(shares(corpus)) for path in share}
    assert main(["features", "info", str(output)]) == 0
    assert f"made from  {', '.join(sources)}, list {corpus.list}\n" in capsys.readouterr().out


def test_an_extraction_planned_before_there_could_be_several_is_continued(
    corpus: Corpus, finished: Path, begun: Path, feature_extractor: Command
) -> None:
    """Version 1 of a plan had fewer columns; the shards' keys are the same."""
    (begun / "manifest.json").unlink()
    for suffix in ("json", "lfb.zst"):
        (begun / f"shard-00003.{suffix}").unlink()
    rows = pq.ParquetFile(begun / "plan/plan.parquet")
    shards = [rows.read_row_group(shard).drop_columns(["source", "stamp"]) for shard in range(NUM_SHARDS)]
    with pq.ParquetWriter(begun / "plan/plan.parquet", shards[0].schema) as writer:
        for shard in shards:
            writer.write_table(shard)
    file = begun / "plan/plan.json"
    plan = json.loads(file.read_text())
    assert (plan["plan_version"], plan["settings"]["audio"]) == (3, corpus.audio)
    sha256 = hashlib.sha256((begun / "plan/plan.parquet").read_bytes()).hexdigest()
    file.write_text(json.dumps(plan | {"plan_version": 1, "rows_sha256": sha256}))
    before = {name: was for name, was in identities(begun).items() if name.startswith("shard-")}
    outcome = feature_extractor("run", *extractor_options(corpus, begun), "--num-workers", 1)
    assert outcome.output.startswith(f"continuing the extraction in {begun}\n")
    assert before.items() <= identities(begun).items()
    assert shards_and_index(begun) == shards_and_index(finished)


@pytest.mark.parametrize("joined", ["; ".join, "\n".join, lambda uris: "".join(f"{uri}/\n" for uri in uris)])
def test_one_text_may_name_all(
    corpus: Corpus,
    sources: list[str],
    tmp_path: Path,
    feature_extractor: Command,
    joined: Callable[[list[str]], str],
) -> None:
    apart, together = tmp_path / "apart", tmp_path / "together"
    assert feature_extractor("run", *options_of(corpus, sources, apart), "--num-workers", 1).code == 0
    arguments = options_of(corpus, [joined(sources)], together)
    assert feature_extractor("run", *arguments, "--num-workers", 1).code == 0
    assert contents(together) == contents(apart)


def test_in_parts_and_after_an_interruption_the_bytes_are_the_same(
    corpus: Corpus, sources: list[str], tmp_path: Path, feature_extractor: Command
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    arguments = options_of(corpus, sources, whole)
    assert feature_extractor("run", *arguments, "--num-workers", 1).code == 0
    before = identities(whole)
    outcome = feature_extractor("run", *arguments)
    assert outcome.output == f"{whole} is finished already; nothing to do\n"
    assert identities(whole) == before

    arguments = options_of(corpus, sources, parts)
    assert feature_extractor("plan", *arguments).code == 0
    assert feature_extractor("extract", "--output", parts, "--shards", "1,4", "--num-workers", 1).code == 0
    made = {name: was for name, was in identities(parts).items() if name.startswith("shard-")}
    assert len(made) == 4
    outcome = feature_extractor("run", *arguments, "--num-workers", 1)
    assert outcome.output.startswith(f"continuing the extraction in {parts}\n")
    assert contents(parts) == contents(whole)
    assert made.items() <= identities(parts).items()


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_other_sources_are_refused(
    corpus: Corpus, sources: list[str], tmp_path: Path, feature_extractor: Command, state: str
) -> None:
    output = tmp_path / "set"
    assert feature_extractor("run", *options_of(corpus, sources, output), "--num-workers", 1).code == 0
    if state == "unfinished":
        (output / "manifest.json").unlink()
    for others in (sources[:2], sources[::-1], [*sources, str(tmp_path)], sources[:1]):
        outcome = feature_extractor("run", *options_of(corpus, others, output))
        wanted = others if len(others) > 1 else others[0]
        assert f"(audio is {sources!r}, now {wanted!r} is asked for); choose another" in outcome.error


def test_a_source_added_with_overwrite(
    corpus: Corpus, finished: Path, sources: list[str], tmp_path: Path, feature_extractor: Command
) -> None:
    output = tmp_path / "set"
    arguments = [*options_of(corpus, sources[:2], output), "--max-rejected", "0.5", "--num-workers", "1"]
    assert feature_extractor("run", *arguments).code == 0
    rejected = [json.loads(line) for line in (output / "rejected.jsonl").read_text().splitlines()]
    assert [utterance["utterance_id"] for utterance in rejected] == list(shares(corpus)[2])
    assert {utterance["detail"] for utterance in rejected} == {f"not in {sources[0]}, {sources[1]}"}
    arguments = [*options_of(corpus, sources, output), "--max-rejected", "0.5", "--num-workers", "1"]
    assert feature_extractor("run", *arguments, "--overwrite").code == 0
    assert shards_and_index(output) == shards_and_index(finished)


def test_an_utterance_in_none_of_the_sources(
    corpus: Corpus, sources: list[str], tmp_path: Path, feature_extractor: Command
) -> None:
    outcome = feature_extractor("run", *options_of(corpus, sources[::2], tmp_path / "set"))
    assert outcome.error == (
        f"7 of 24 listed utterances are not in {sources[0]}, {sources[2]}, the first is "
        f"{next(iter(shares(corpus)[1]))}; complete the audio or the list, or raise --max-rejected (now 0.01)"
    )
    assert not (tmp_path / "set").exists()


def test_an_utterance_in_two_sources_is_refused_before_anything_is_written(
    corpus: Corpus, sources: list[str], tmp_path: Path, feature_extractor: Command
) -> None:
    path = list(shares(corpus)[0])[3]
    write_files(Path(sources[2]), {path: corpus.members[path]})
    listed = options_of(corpus, sources, tmp_path / "set")
    for arguments in (listed, [*listed[:6], "--output", str(tmp_path / "set")]):
        outcome = feature_extractor("run", *arguments)
        assert outcome.code == 1
        assert outcome.error.startswith(
            f"1 utterances are in more than one source, the first is {path}: in {sources[0]} and in "
            f"{sources[2]}. Nothing says which is meant"
        )
        assert not (tmp_path / "set").exists()


def test_a_source_named_twice_is_refused(
    corpus: Corpus, sources: list[str], tmp_path: Path, feature_extractor: Command
) -> None:
    other_part = sources[1].replace("partab", "partac")
    outcome = feature_extractor("run", *options_of(corpus, [*sources, other_part], tmp_path / "set"))
    assert outcome.error == (
        f"--audio names {sources[1]} and {other_part}, which are the same; name it once (of an archive in "
        "parts, any one part)"
    )


def test_a_dry_run_reads_from_all_and_writes_nothing(
    corpus: Corpus, sources: list[str], tmp_path: Path, feature_extractor: Command
) -> None:
    outcome = feature_extractor("run", *options_of(corpus, sources, tmp_path / "set"), "--dry-run")
    assert outcome.code == 0
    assert "of 24 utterances tried, rejected: none\n" in outcome.output
    assert outcome.output.endswith("dry run: nothing was written\n")
    assert not (tmp_path / "set").exists()


def test_without_a_list_the_sources_merge(
    corpus: Corpus, finished: Path, sources: list[str], tmp_path: Path, feature_extractor: Command
) -> None:
    output = tmp_path / "set"
    named = [argument for source in sources for argument in ("--audio", source)]
    arguments = [*named, "--output", str(output), "--num-shards", str(NUM_SHARDS), "--num-workers", "1"]
    assert feature_extractor("run", *arguments).code == 0
    assert shards_and_index(output) == shards_and_index(finished)
    assert FeatureSet.open(str(output)).manifest.num_speakers == 3


def test_entries_that_leave_any_of_the_archives_are_reported(
    corpus: Corpus, sources: list[str], tmp_path: Path, feature_extractor: Command
) -> None:
    first, second, _ = shares(corpus)
    Path(sources[0]).write_bytes(zip_bytes({"../a.wav": b"", **first}))
    Path(sources[0]).with_name("d.tar").write_bytes(tar_bytes({"/b.wav": b"", **second}))
    several = [sources[0], sources[0].replace("a.zip", "d.tar"), sources[2]]
    output = tmp_path / "set"
    assert feature_extractor("run", *options_of(corpus, several, output), "--num-workers", 1).code == 0
    rejected = [json.loads(line) for line in (output / "rejected.jsonl").read_text().splitlines()]
    assert [(r["utterance_id"], r["reason"]) for r in rejected] == [
        ("../a.wav", "unsafe_path"), ("/b.wav", "unsafe_path"),
    ]  # fmt: skip


def test_a_source_gone_since_planning_is_an_error(
    corpus: Corpus, sources: list[str], tmp_path: Path, feature_extractor: Command
) -> None:
    assert feature_extractor("plan", *options_of(corpus, sources, tmp_path / "set")).code == 0
    shutil.rmtree(sources[2])
    outcome = feature_extractor("extract", "--output", tmp_path / "set", "--num-workers", 1)
    assert outcome.error == f"{sources[2]}: cannot read: it does not exist; check the path"


def test_buckets_and_disks_together(
    corpus: Corpus,
    finished: Path,
    sources: list[str],
    tmp_path: Path,
    bucket: str,
    feature_extractor: Command,
) -> None:
    first, _, third = shares(corpus)
    storage.write_bytes(f"{bucket}/a.tar.zst", archive_bytes("tar.zst", first))
    for path, data in third.items():
        storage.write_bytes(f"{bucket}/wav/c/{path}", data)
    mixed = [f"{bucket}/a.tar.zst", sources[1], f"{bucket}/wav"]
    output = tmp_path / "set"
    assert feature_extractor("run", *options_of(corpus, mixed, output), "--num-workers", 1).code == 0
    assert shards_and_index(output) == shards_and_index(finished)
