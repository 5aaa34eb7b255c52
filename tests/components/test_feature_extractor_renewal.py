"""Audio that changes between two runs, and `--overwrite`."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audio_files import noise, wav
from commands import NUM_SHARDS, Command, contents, extractor_options, identities
from corpora import Corpus, tar_bytes, write_corpus, zip_bytes
from feature_extractor import renewal
from voxsrc import storage
from voxsrc.errors import StorageError

ONE_WORKER = ["--num-workers", "1"]


def with_another(members: dict[str, bytes]) -> tuple[str, dict[str, bytes]]:
    """A file of another content and the same size in the middle of them, and them all."""
    path = list(members)[13]
    other = wav(noise((len(members[path]) - 44) / 32_000, seed=7))
    assert len(other) == len(members[path])
    assert other != members[path]
    return path, {**members, path: other}


def write_later(path: Path, content: bytes) -> None:
    """Whatever the clock of the file system can tell apart."""
    mtime_ns = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns + 1, mtime_ns + 1))


def shard_identities(output: Path) -> dict[str, tuple[int, int]]:
    return {name: was for name, was in identities(output).items() if name.startswith("shard-")}


def made_again(before: dict[str, tuple[int, int]], output: Path) -> set[str]:
    now = shard_identities(output)
    assert now.keys() == before.keys()
    return {name.split(".")[0] for name in now if now[name] != before[name]}


def set_bytes(output: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(output).items() if not name.startswith("plan/")}


@pytest.fixture
def own(corpus: Corpus, tmp_path: Path) -> Corpus:
    """The corpus, to be changed."""
    return write_corpus(tmp_path / "own", corpus.members)


@pytest.fixture
def made(own: Corpus, tmp_path: Path, feature_extractor: Command) -> Path:
    """A finished set of it."""
    output = tmp_path / "set"
    assert feature_extractor("run", *extractor_options(own, output), *ONE_WORKER).code == 0
    return output


def fresh(own: Corpus, tmp_path: Path, feature_extractor: Command) -> dict[str, bytes]:
    output = tmp_path / "fresh"
    assert feature_extractor("run", *extractor_options(own, output), *ONE_WORKER).code == 0
    return set_bytes(output)


def test_what_cannot_be_planned_leaves_a_finished_set_as_it_is(
    own: Corpus, made: Path, tmp_path: Path, feature_extractor: Command
) -> None:
    before = identities(made)
    options = extractor_options(own, made)
    outcome = feature_extractor("run", *options, "--audio", str(tmp_path / "gone.tar"), "--overwrite")
    assert outcome.code == 1
    assert "gone.tar" in outcome.error
    assert identities(made) == before


@pytest.mark.parametrize("commands", [["run"], ["plan", "extract", "finish"]])
def test_a_file_changed_at_equal_size_is_made_again(
    own: Corpus, made: Path, tmp_path: Path, feature_extractor: Command, commands: list[str]
) -> None:
    path, changed = with_another(own.members)
    write_later(Path(own.audio, path), changed[path])
    before = shard_identities(made)
    arguments = [*extractor_options(own, made), "--overwrite"]
    assert feature_extractor(commands[0], *arguments).code == 0
    for command in commands[1:]:
        assert feature_extractor(command, "--output", made).code == 0
    assert len(made_again(before, made)) == 1
    assert set_bytes(made) == fresh(own, tmp_path, feature_extractor)


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_an_archive_replaced_by_one_of_equal_sizes(
    corpus: Corpus, tmp_path: Path, feature_extractor: Command, form: str
) -> None:
    """A tar has no checksums, so all of it is made again; of a zip what has another one."""
    pack: Callable[[dict[str, bytes]], bytes] = tar_bytes if form == "tar" else zip_bytes
    archive = tmp_path / f"a.{form}"
    archive.write_bytes(pack(corpus.members))
    own, output = Corpus(str(archive), corpus.list, corpus.members), tmp_path / "set"
    arguments = ["run", *extractor_options(own, output), *ONE_WORKER]
    assert feature_extractor(*arguments).code == 0
    before = shard_identities(output)
    write_later(archive, pack(with_another(corpus.members)[1]))
    assert feature_extractor(*arguments, "--overwrite").code == 0
    assert len(made_again(before, output)) == (NUM_SHARDS if form == "tar" else 1)
    assert set_bytes(output) == fresh(own, tmp_path, feature_extractor)


def test_a_zip_that_was_only_copied_is_not_read_again(
    corpus: Corpus, tmp_path: Path, feature_extractor: Command
) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_bytes(corpus.members, zipfile.ZIP_DEFLATED))
    arguments = ["run", *extractor_options(Corpus(str(archive), corpus.list, {}), tmp_path / "set")]
    assert feature_extractor(*arguments, *ONE_WORKER).code == 0
    before = shard_identities(tmp_path / "set")
    write_later(archive, archive.read_bytes())
    assert feature_extractor(*arguments, "--overwrite").code == 0
    assert made_again(before, tmp_path / "set") == set()


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_an_object_changed_at_equal_size_is_made_again_and_a_copy_is_not(
    corpus: Corpus, tmp_path: Path, bucket: str, feature_extractor: Command, form: str
) -> None:
    def store(members: dict[str, bytes]) -> None:
        if form == "tar":
            storage.write_bytes(f"{bucket}/audio", tar_bytes(members))
            return
        for path, content in members.items():
            storage.write_bytes(f"{bucket}/audio/{path}", content)

    store(corpus.members)
    own, output = Corpus(f"{bucket}/audio", corpus.list, {}), tmp_path / "set"
    arguments = ["run", *extractor_options(own, output), *ONE_WORKER]
    assert feature_extractor(*arguments).code == 0
    before = shard_identities(output)
    store(corpus.members)
    assert feature_extractor(*arguments, "--overwrite").code == 0
    assert made_again(before, output) == set()
    (output / "manifest.json").unlink()
    assert "note: " not in feature_extractor(*arguments).output
    store(with_another(corpus.members)[1])
    assert feature_extractor(*arguments, "--overwrite").code == 0
    assert len(made_again(before, output)) == (NUM_SHARDS if form == "tar" else 1)
    assert set_bytes(output) == fresh(own, tmp_path, feature_extractor)


@pytest.mark.parametrize(
    "killed_at", ["plan/plan.parquet", "plan/plan.json", "shard-00001.json", "manifest.json"]
)
def test_overwrite_killed_and_continued_without_it(
    own: Corpus,
    made: Path,
    tmp_path: Path,
    feature_extractor: Command,
    monkeypatch: pytest.MonkeyPatch,
    killed_at: str,
) -> None:
    path, changed = with_another(own.members)
    write_later(Path(own.audio, path), changed[path])
    write = storage.write_bytes

    def die(uri: str, *arguments: Any, **options: Any) -> storage.ObjectInfo:
        if uri.endswith(killed_at):
            raise StorageError("killed")
        return write(uri, *arguments, **options)

    arguments = ["run", *extractor_options(own, made), *ONE_WORKER]
    first = list(own.members)[4]  # so that shard 1 is made again, too
    write_later(Path(own.audio, first), own.members[first])
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", die)
        assert feature_extractor(*arguments, "--overwrite").error == "killed"
    assert feature_extractor(*arguments).code == 0
    assert set_bytes(made) == fresh(own, tmp_path, feature_extractor)


def test_a_change_is_not_forgotten_by_a_plan_made_anew_without_overwrite(
    own: Corpus, made: Path, tmp_path: Path, feature_extractor: Command
) -> None:
    path, changed = with_another(own.members)
    arguments = ["run", *extractor_options(own, made), *ONE_WORKER]
    for lost in (None, "plan/plan.json"):
        write_later(Path(own.audio, path), changed[path])
        before = shard_identities(made)
        (made / "manifest.json").unlink()
        if lost:
            (made / lost).unlink()
        # Another fraction plans anew, as a lost plan does; what is finished is kept.
        assert feature_extractor(*arguments, "--max-rejected", "0.5").code == 0
        assert made_again(before, made) == set()
        assert feature_extractor(*arguments, "--overwrite").code == 0
        assert len(made_again(before, made)) == (NUM_SHARDS if lost else 1)
    assert set_bytes(made) == fresh(own, tmp_path, feature_extractor)


def test_overwrite_makes_shards_again_from_which_utterances_were_rejected(
    own: Corpus, tmp_path: Path, feature_extractor: Command
) -> None:
    """A file that was away for a while has the same stamp as ever."""
    output, away = tmp_path / "set", Path(own.audio, list(own.members)[13])
    options = extractor_options(own, output)
    assert feature_extractor("plan", *options, "--max-rejected", 0.1).code == 0
    away.rename(tmp_path / "away.wav")
    assert feature_extractor("run", *options, "--max-rejected", 0.1, *ONE_WORKER).code == 0
    (tmp_path / "away.wav").rename(away)
    before = shard_identities(output)
    assert feature_extractor("plan", *options, "--overwrite").code == 0
    assert feature_extractor("extract", "--output", output).code == 0
    assert feature_extractor("finish", "--output", output).code == 0
    assert len(made_again(before, output)) == 1
    assert set_bytes(output) == fresh(own, tmp_path, feature_extractor)


def test_other_options_for_a_while_bring_nothing_stale_back(
    own: Corpus, made: Path, tmp_path: Path, feature_extractor: Command
) -> None:
    path, changed = with_another(own.members)
    write_later(Path(own.audio, path), changed[path])
    fewer = [*extractor_options(own, made), "--num-shards", "2", "--overwrite"]
    assert feature_extractor("plan", *fewer).code == 0
    assert feature_extractor("run", *extractor_options(own, made), *ONE_WORKER, "--overwrite").code == 0
    assert set_bytes(made) == fresh(own, tmp_path, feature_extractor)


def test_a_resumed_run_says_that_the_audio_has_changed_and_keeps_what_is_finished(
    own: Corpus, made: Path, feature_extractor: Command
) -> None:
    (made / "manifest.json").unlink()
    options = extractor_options(own, made)
    assert "note: " not in feature_extractor("run", *options, *ONE_WORKER).output
    (made / "manifest.json").unlink()
    before, paths = shard_identities(made), list(own.members)
    write_later(Path(own.audio, paths[3]), own.members[paths[3]])
    Path(own.audio, paths[9]).unlink()
    for command in (["plan"], ["run", *ONE_WORKER]):
        outcome = feature_extractor(*command, *options)
        assert outcome.output.splitlines()[:2] == [
            f"continuing the extraction in {made}",
            "note: the audio of 2 utterances has changed since it was planned, or was copied, or is gone "
            f"(24 of 24 were looked at; the first is {paths[3]}); finished shards are kept. Unless the "
            "copies are equal, run again with --overwrite, which makes anew what has changed",
        ]
    assert made_again(before, made) == set()


def test_of_many_files_a_resumed_run_looks_at_some(
    own: Corpus, made: Path, feature_extractor: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "_LOOKED_AT", 8)
    (made / "manifest.json").unlink()
    for path, content in own.members.items():
        write_later(Path(own.audio, path), content)
    outcome = feature_extractor("run", *extractor_options(own, made), *ONE_WORKER)
    looked_at = sum(-(-size // 3) for size in shard_sizes(made))
    assert f"({looked_at} of 24 were looked at; the first is " in outcome.output


def shard_sizes(output: Path) -> list[int]:
    from feature_extractor.plan import read_plan

    return read_plan(str(output)).shard_sizes


def test_finished_shards_need_no_audio(own: Corpus, made: Path, feature_extractor: Command) -> None:
    before = shard_identities(made)
    (made / "manifest.json").unlink()
    shutil.move(own.audio, f"{own.audio}-elsewhere")
    outcome = feature_extractor("run", *extractor_options(own, made), *ONE_WORKER)
    assert outcome.code == 0
    assert made_again(before, made) == set()
