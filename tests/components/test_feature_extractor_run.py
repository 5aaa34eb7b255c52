import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from commands import NUM_SHARDS, Command, contents, extractor_options, identities
from corpora import Corpus, tar_bytes
from feature_extractor.cli import main
from voxsrc import storage
from voxsrc.audio import decode
from voxsrc.feature_set import Encoding, FeatureSet, read_manifest
from voxsrc.feature_set.verification import verify
from voxsrc.features import FbankSpec
from voxsrc.features.scipy_log_mel import LogMelExtractor


def test_the_set_holds_each_utterances_features(corpus: Corpus, finished: Path) -> None:
    assert verify(str(finished)) == []
    features = FeatureSet.open(str(finished))
    assert features.index.utterance_ids == list(corpus.members)
    assert features.index.speaker_ids == [path.split("/")[0] for path in corpus.members]
    assert features.index.session_ids == [path.split("/")[1] for path in corpus.members]
    spec = FbankSpec()
    encoding, log_mel = Encoding.for_spec(spec), LogMelExtractor(spec)
    num_samples = 0
    for path, content in corpus.members.items():
        waveform = decode(content).waveform
        num_samples += len(waveform)
        levels, _ = encoding.quantise(log_mel(waveform))
        assert np.array_equal(features.read(path), encoding.dequantise(levels))
    manifest = features.manifest
    assert (manifest.num_utterances, manifest.num_speakers, manifest.num_samples) == (24, 3, num_samples)
    assert manifest.num_rejected == {}
    assert manifest.counts == {
        "resampled_utterances": 0, "downmixed_utterances": 0, "limited_samples": 0, "limited_values": 0,
    }  # fmt: skip
    assert len(manifest.shards) == NUM_SHARDS
    assert (finished / "rejected.jsonl").read_bytes() == b""


def test_what_it_says(corpus: Corpus, tmp_path: Path, feature_extractor: Command) -> None:
    outcome = feature_extractor("run", *extractor_options(corpus, tmp_path / "set"), "--num-workers", 1)
    manifest = read_manifest(str(tmp_path / "set"))
    assert outcome.code == 0
    assert outcome.output.splitlines() == [
        f"looking for the audio in {corpus.audio}",
        f"24 utterances, {sum(map(len, corpus.members.values())) / 1e9:.3f} GB of audio, 6 shards",
        f"{tmp_path / 'set'}: 24 utterances of 3 speakers, {manifest.seconds / 3600:.2f} h, "
        f"{manifest.stored_bytes / 1e6:.2f} MB "
        f"({100 * manifest.stored_bytes / manifest.pcm16_bytes:.2f} % of 16-bit PCM), 0 rejected",
    ]
    assert "24/24" in outcome.errors
    assert "× real time, 6/6 shards" in outcome.errors


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_workers_leaves_no_trace(
    corpus: Corpus, finished: Path, tmp_path: Path, feature_extractor: Command, num_workers: int
) -> None:
    output = tmp_path / "set"
    assert (
        feature_extractor("run", *extractor_options(corpus, output), "--num-workers", num_workers).code == 0
    )
    assert contents(output) == contents(finished)


@pytest.mark.parametrize("seed", range(3))
def test_shards_made_one_by_one_in_any_order(
    corpus: Corpus, finished: Path, tmp_path: Path, feature_extractor: Command, seed: int
) -> None:
    output = tmp_path / "set"
    assert feature_extractor("plan", *extractor_options(corpus, output)).code == 0
    assert sorted(contents(output)) == ["plan/plan.json", "plan/plan.parquet"]
    for shard in random.Random(seed).sample(range(NUM_SHARDS), NUM_SHARDS):
        assert feature_extractor("extract", "--output", output, "--shards", shard).code == 0
        assert f"shard-{shard:05d}.lfb.zst" in contents(output)
    assert feature_extractor("finish", "--output", output).code == 0
    assert contents(output) == contents(finished)


@pytest.mark.parametrize(
    "selections",
    [
        ["--part", "1/4", "--part", "3/4", "--part", "0/4", "--part", "2/4"],
        ["--shards", "4-5,1", "--shards", "0-3"],
        ["--shards", "all"],
    ],
)
def test_shards_made_in_parts(
    corpus: Corpus, finished: Path, tmp_path: Path, feature_extractor: Command, selections: list[str]
) -> None:
    output = tmp_path / "set"
    assert feature_extractor("plan", *extractor_options(corpus, output)).code == 0
    for flag, selection in zip(selections[::2], selections[1::2], strict=True):
        assert feature_extractor("extract", "--output", output, flag, selection, "--num-workers", 1).code == 0
    assert feature_extractor("finish", "--output", output).code == 0
    assert contents(output) == contents(finished)


@pytest.mark.parametrize("num_parts", [1, 2, 4, 7, 20])
def test_parts_cover_every_shard_once(
    corpus: Corpus, tmp_path: Path, feature_extractor: Command, num_parts: int
) -> None:
    output = tmp_path / "set"
    assert feature_extractor("plan", *extractor_options(corpus, output)).code == 0
    made: list[str] = []
    for part in range(num_parts):
        before = set(contents(output))
        arguments = ("extract", "--output", output, "--part", f"{part}/{num_parts}", "--num-workers", 1)
        assert feature_extractor(*arguments).code == 0
        made += sorted(set(contents(output)) - before)
    assert made == [f"shard-{n:05d}.{kind}" for n in range(NUM_SHARDS) for kind in ("json", "lfb.zst")]


def test_speed_perturbed_copies_are_new_speakers(
    corpus: Corpus, finished: Path, tmp_path: Path, feature_extractor: Command
) -> None:
    output = tmp_path / "set"
    arguments = ["run", *extractor_options(corpus, output), "--speed", "0.9,1,1.1", "--num-workers", "1"]
    assert feature_extractor(*arguments).code == 0
    original, features = FeatureSet.open(str(finished)), FeatureSet.open(str(output))
    assert features.index.utterance_ids == [
        f"{path}{mark}" for path in corpus.members for mark in ("", "-sp0.9", "-sp1.1")
    ]
    assert set(features.index.speaker_ids) == {
        f"id{n}{m}" for n in range(3) for m in ("", "-sp0.9", "-sp1.1")
    }
    manifest = features.manifest
    assert (manifest.num_utterances, manifest.num_speakers) == (72, 9)
    ratio = 1 + 1 / 0.9 + 1 / 1.1
    assert manifest.num_samples == pytest.approx(ratio * original.manifest.num_samples, rel=1e-3)
    for path in corpus.members:
        assert np.array_equal(features.read(path), original.read(path))
        num_frames = len(original.read(path))
        assert len(features.read(f"{path}-sp0.9")) == pytest.approx(num_frames / 0.9, abs=2)
        assert len(features.read(f"{path}-sp1.1")) == pytest.approx(num_frames / 1.1, abs=2)
    assert features.index.session_ids[0] == features.index.session_ids[1] == "s0"


def test_dither_is_the_same_in_every_run(corpus: Corpus, tmp_path: Path, feature_extractor: Command) -> None:
    made = []
    for name, num_workers in (("a", 1), ("b", 2)):
        arguments = ["run", *extractor_options(corpus, tmp_path / name), "--set", "dither=0.001"]
        assert feature_extractor(*arguments, "--num-workers", num_workers).code == 0
        made.append(contents(tmp_path / name))
    assert made[0] == made[1]


def test_dry_run_writes_nothing(
    corpus: Corpus, begun: Path, tmp_path: Path, feature_extractor: Command
) -> None:
    outcome = feature_extractor(
        "run", *extractor_options(corpus, tmp_path / "new"), "--dry-run", "--num-workers", 2
    )
    assert outcome.code == 0
    assert not (tmp_path / "new").exists()
    lines = outcome.output.splitlines()
    assert lines[2:3] + lines[-1:] == [
        "of 24 utterances tried, rejected: none", "dry run: nothing was written",
    ]  # fmt: skip
    assert "0.0 h of audio → 0.0 MB of features" in lines[3]
    assert "min with 2 worker(s) at " in lines[3]
    before = identities(begun)
    arguments = ("run", *extractor_options(corpus, begun), "--step", "0.1", "--overwrite", "--dry-run")
    assert feature_extractor(*arguments).code == 0
    (begun / "manifest.json").unlink()
    del before["manifest.json"]
    assert feature_extractor("plan", *extractor_options(corpus, begun), "--dry-run").code == 0
    assert identities(begun) == before


def executor_input(folder: Path) -> str:
    artifact = {"name": "metrics", "uri": "gs://b/metrics", "metadata": {}}
    outputs = {"artifacts": {"metrics": {"artifacts": [artifact]}}, "outputFile": str(folder / "out.json")}
    return json.dumps({"inputs": {}, "outputs": outputs})


@pytest.mark.parametrize("command", ["run", "run-again", "finish"])
def test_metrics_for_kubeflow(
    corpus: Corpus, begun: Path, tmp_path: Path, feature_extractor: Command, command: str
) -> None:
    arguments = ["--executor-input", executor_input(tmp_path)]
    if command == "run":
        (begun / "manifest.json").unlink()
    if command == "finish":
        assert feature_extractor("finish", "--output", begun, *arguments).code == 0
    else:
        assert (
            feature_extractor("run", *extractor_options(corpus, begun), "--num-workers", 1, *arguments).code
            == 0
        )
    manifest = read_manifest(str(begun))
    [written] = json.loads((tmp_path / "out.json").read_text())["artifacts"]["metrics"]["artifacts"]
    assert written["metadata"] == {
        "num_utterances": 24,
        "num_speakers": 3,
        "hours": manifest.seconds / 3600,
        "megabytes": manifest.stored_bytes / 1e6,
        "percent_of_pcm16": 100 * manifest.stored_bytes / manifest.pcm16_bytes,
        "num_rejected": 0,
    }


def test_everything_in_a_bucket_by_two_workers(corpus: Corpus, finished: Path, bucket: str) -> None:
    storage.write_bytes(f"{bucket}/audio.tar", tar_bytes(corpus.members))
    storage.upload(corpus.list, f"{bucket}/list.txt")
    arguments = [
        "--audio",
        f"{bucket}/audio.tar",
        "--list",
        f"{bucket}/list.txt",
        "--num-shards",
        str(NUM_SHARDS),
    ]
    # The fork server of this process may have been started before the bucket's server.
    command = [sys.executable, "-m", "feature_extractor", "run", *arguments, "--output", f"{bucket}/set"]
    subprocess.run([*command, "--num-workers", "2"], check=True)
    assert verify(f"{bucket}/set") == []
    features, expected = FeatureSet.open(f"{bucket}/set"), FeatureSet.open(str(finished))
    assert features.index.utterance_ids == expected.index.utterance_ids
    for path in corpus.members:
        assert np.array_equal(features.read(path), expected.read(path))
    generations = {info.uri: info.generation for info in storage.list_files(f"{bucket}/set")}
    assert main(["run", *arguments, "--output", f"{bucket}/set"]) == 0
    assert {info.uri: info.generation for info in storage.list_files(f"{bucket}/set")} == generations
    storage.delete(f"{bucket}/set/manifest.json")
    storage.write_bytes(f"{bucket}/set/shard-00004.lfb.zst", b"damaged")
    assert main(["run", *arguments, "--output", f"{bucket}/set", "--num-workers", "1"]) == 0
    after = {info.uri: info.generation for info in storage.list_files(f"{bucket}/set")}
    changed = {storage.name(uri) for uri in generations if after[uri] != generations[uri]}
    assert changed == {
        "shard-00004.lfb.zst", "shard-00004.json", "utterances.parquet", "rejected.jsonl", "manifest.json",
    }  # fmt: skip


def test_a_finished_set_without_its_plan_needs_no_more_steps(
    finished: Path, tmp_path: Path, feature_extractor: Command
) -> None:
    """A copy of a finished set, in a pipeline: planning says it is finished, so must the later steps."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("plan"))
    before = identities(copy)
    extracted = feature_extractor("extract", "--output", str(copy), "--part", "0/2")
    assert (extracted.code, extracted.output) == (0, f"{copy} is finished already; nothing to extract\n")
    assert feature_extractor("finish", "--output", str(copy)).code == 0
    assert identities(copy) == before
    (copy / "manifest.json").unlink()
    assert feature_extractor("extract", "--output", str(copy), "--part", "0/2").code == 1
