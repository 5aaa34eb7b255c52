import concurrent.futures
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from commands import Command, contents, extractor_options, identities
from corpora import Corpus
from feature_extractor import extraction
from voxsrc import storage
from voxsrc.errors import StorageError


def test_run_again_does_nothing(corpus: Corpus, begun: Path, feature_extractor: Command) -> None:
    before = identities(begun)
    outcome = feature_extractor("run", *extractor_options(corpus, begun))
    assert (outcome.code, outcome.output) == (0, f"{begun} is finished already; nothing to do\n")
    outcome = feature_extractor("plan", *extractor_options(corpus, begun))
    assert (outcome.code, outcome.output) == (0, f"{begun} is finished already; nothing to plan\n")
    assert feature_extractor("extract", "--output", begun, "--num-workers", 1).code == 0
    assert identities(begun) == before


def test_a_finished_set_does_not_need_its_audio_any_more(
    corpus: Corpus, tmp_path: Path, feature_extractor: Command
) -> None:
    moved = tmp_path / "audio"
    moved.symlink_to(corpus.audio)
    arguments = ["run", "--audio", moved, "--list", corpus.list, "--output", tmp_path / "set"]
    assert feature_extractor(*arguments).code == 0
    moved.unlink()
    assert feature_extractor(*arguments).code == 0


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def shorten(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("harm", [damage, shorten, Path.unlink])
@pytest.mark.parametrize("kind", ["lfb.zst", "json"])
@pytest.mark.parametrize("command", ["run", "extract"])
def test_only_harmed_shards_are_made_again(
    corpus: Corpus,
    finished: Path,
    begun: Path,
    feature_extractor: Command,
    harm: Any,
    kind: str,
    command: str,
) -> None:
    (begun / "manifest.json").unlink()
    before = identities(begun)
    for shard in (2, 5):
        harm(begun / f"shard-{shard:05d}.{kind}")
    if command == "run":
        assert feature_extractor("run", *extractor_options(corpus, begun), "--num-workers", 1).code == 0
    else:
        named = r"2 shard(s) (2, 5) are "
        for _ in range(2):
            outcome = feature_extractor("finish", "--output", begun)
            assert outcome.code == 1
            missing = harm is Path.unlink and kind == "json"
            assert outcome.error == named + (
                "not made yet; run `feature-extractor extract` for them"
                if missing
                else "damaged or not as planned; run `feature-extractor extract` to make them again"
            )
            assert not (begun / "manifest.json").exists()
        assert feature_extractor("extract", "--output", begun, "--num-workers", 1).code == 0
        assert feature_extractor("finish", "--output", begun).code == 0
    assert contents(begun) == contents(finished)
    after = identities(begun)
    changed = {path for path in before if path.startswith("shard") and after[path] != before[path]}
    assert changed == {f"shard-{shard:05d}.{end}" for shard in (2, 5) for end in ("json", "lfb.zst")}


def test_finish_names_missing_shards_but_not_all_of_many(
    corpus: Corpus, tmp_path: Path, feature_extractor: Command
) -> None:
    output = tmp_path / "set"
    assert feature_extractor("plan", *extractor_options(corpus, output), "--num-shards", 12).code == 0
    assert feature_extractor("extract", "--output", output, "--shards", "0,3").code == 0
    outcome = feature_extractor("finish", "--output", output)
    assert outcome.error == (
        "10 shard(s) (1, 2, 4, 5, 6, …) are not made yet; run `feature-extractor extract` for them"
    )


@pytest.mark.parametrize("command", ["extract", "finish"])
def test_without_a_plan(tmp_path: Path, feature_extractor: Command, command: str) -> None:
    outcome = feature_extractor(command, "--output", tmp_path)
    assert outcome.code == 1
    assert outcome.error == f"{tmp_path} has no plan; make one with `feature-extractor plan`"


def test_a_plan_replaced_half_way_is_made_anew(
    corpus: Corpus,
    finished: Path,
    begun: Path,
    feature_extractor: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = storage.write_bytes

    def fail_at_plan_json(uri: str, data: bytes) -> storage.ObjectInfo:
        if uri.endswith("plan.json"):
            raise StorageError("stopped here")
        return write(uri, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", fail_at_plan_json)
        arguments = [*extractor_options(corpus, begun), "--speed", "0.9", "--num-shards", "2", "--overwrite"]
        assert feature_extractor("run", *arguments).error == "stopped here"
    # The rows are now those of the other plan; the first command must not extract them under its name.
    assert feature_extractor("run", *extractor_options(corpus, begun), "--num-workers", 1).code == 0
    assert contents(begun) == contents(finished)


def test_rows_of_another_plan_are_refused(corpus: Corpus, begun: Path, feature_extractor: Command) -> None:
    (begun / "manifest.json").unlink()
    damage(begun / "plan/plan.parquet")
    for arguments in (["run", *extractor_options(corpus, begun)], ["finish", "--output", str(begun)]):
        outcome = feature_extractor(*arguments)
        assert outcome.error == (
            f"{begun}/plan/plan.parquet is damaged or of another plan; delete {begun}/plan/plan.json "
            "and run the same command again"
        )


def test_a_damaged_plan_is_refused(begun: Path, feature_extractor: Command) -> None:
    shorten(begun / "plan/plan.json")
    outcome = feature_extractor("extract", "--output", begun)
    assert outcome.error.startswith(f"{begun}/plan/plan.json is not a plan (")
    assert outcome.error.endswith("; delete it and plan again")


def test_ctrl_c_keeps_what_is_finished(
    corpus: Corpus,
    finished: Path,
    tmp_path: Path,
    feature_extractor: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = extraction.ShardMaker.make

    def interrupted(self: extraction.ShardMaker, shard: int, on_utterance: Any) -> Any:
        if shard == 3:
            raise KeyboardInterrupt
        return make(self, shard, on_utterance)

    output = tmp_path / "set"
    arguments = ["run", *extractor_options(corpus, output), "--num-workers", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(extraction.ShardMaker, "make", interrupted)
        outcome = feature_extractor(*arguments)
    assert outcome.code == 130
    assert outcome.errors.endswith("\ninterrupted; what is finished is kept\n")
    before = identities(output)
    assert sum(path.endswith(".json") for path in before if path.startswith("shard")) == 3
    outcome = feature_extractor(*arguments)
    assert outcome.output.startswith(f"continuing the extraction in {output}\n")
    assert contents(output) == contents(finished)
    assert before.items() <= identities(output).items()


def test_a_worker_that_dies_is_an_error_and_costs_no_finished_shard(
    corpus: Corpus,
    finished: Path,
    tmp_path: Path,
    feature_extractor: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = []

    def with_workers_held(
        num_workers: int, context: Any, start: Any, shared: tuple[Any, ...]
    ) -> concurrent.futures.ProcessPoolExecutor:
        _, utterances_done, _ = shared
        # To report a shard, each needs it: none has done its first one before the kill.
        utterances_done.get_lock().acquire()
        held.append(utterances_done.get_lock())
        return concurrent.futures.ProcessPoolExecutor(num_workers, context, start, shared)

    def kill_a_worker(*arguments: Any, **options: Any) -> Any:
        if held:
            [*_, worker] = multiprocessing.active_children()
            assert worker.pid
            os.kill(worker.pid, signal.SIGKILL)
            held.pop().release()
        return concurrent.futures.wait(*arguments, **options)

    output = tmp_path / "set"
    arguments = ["run", *extractor_options(corpus, output), "--num-workers", "2"]
    with monkeypatch.context() as patch:
        patch.setattr("feature_extractor.extraction.ProcessPoolExecutor", with_workers_held)
        patch.setattr("feature_extractor.extraction.wait", kill_a_worker)
        outcome = feature_extractor(*arguments)
    assert outcome.code == 1
    assert outcome.error.startswith("a worker process died, most likely killed for want of memory; ")
    assert feature_extractor(*arguments).code == 0
    assert contents(output) == contents(finished)
