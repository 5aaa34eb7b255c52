"""What the store does with checkpoints, locally and in a bucket."""

import json
import logging
import math
import re
from pathlib import Path

import pytest

from checkpoints import bits, checkpoint_files, damage, snapshot_of, state_of, steps
from trainer.checkpoint import CheckpointError, CheckpointStore
from trainer.checkpoint.pointer import POINTER_NAME, Pointer
from voxsrc import storage
from voxsrc.errors import NotFoundError

pytestmark = pytest.mark.usefixtures("hurry")


def test_saves_loads_and_keeps_the_last_and_the_best(output: str) -> None:
    with CheckpointStore(output, keep_last=2).open_for_writing("a") as store:
        assert store.load() is None
        assert store.best is None
        for step, metric in ((1, 9.0), (2, 3.0), (3, 4.0), (4, None), (5, math.nan)):
            entry = store.save(step, snapshot_of(step), metric=metric)
            assert checkpoint_files(store) == {kept.name for kept in store.entries}
        assert steps(store) == [5, 4, 2]
        assert entry.name == f"step-000000005-{entry.sha256[:12]}.checkpoint.safetensors"
        assert storage.stat(storage.join(store.folder_uri, entry.name)).size == entry.bytes
        best = store.load(best=True)
        assert best is not None
        assert (best.entry.step, best.entry.metric, best.skipped) == (2, 3.0, ())
        assert bits(best.state) == bits(state_of(2))
    reader = CheckpointStore(output)
    newest = reader.load(map_location="cpu")
    assert newest is not None
    assert bits(newest.state) == bits(state_of(5))
    assert (steps(reader), reader.best) == ([5, 4, 2], best.entry)


def test_a_program_of_before_finds_what_it_reads(tmp_path: Path) -> None:
    with CheckpointStore(str(tmp_path)).open_for_writing("a") as store:
        store.save(1, snapshot_of(1), metric=0.5)
    fields = json.loads(storage.read_bytes(storage.join(store.folder_uri, POINTER_NAME)))
    assert {"writer", "lower_is_better", "checkpoints"} < fields.keys()
    assert fields["lower_is_better"] is True


def test_the_earliest_of_equals_is_best(tmp_path: Path) -> None:
    with CheckpointStore(str(tmp_path), keep_last=1).open_for_writing("a") as store:
        for step, metric in enumerate((0.7, 0.5, 0.5, 0.6)):
            store.save(step, snapshot_of(step), metric=metric)
        assert steps(store) == [3, 1]
    assert CheckpointStore(str(tmp_path)).best == store.best


def test_without_any_metric_none_is_best(tmp_path: Path) -> None:
    with CheckpointStore(str(tmp_path)).open_for_writing("a") as store:
        store.save(1, snapshot_of(1))
        assert store.load(best=True) is None


def test_saving_a_step_again_replaces_it_and_what_came_after(tmp_path: Path) -> None:
    with CheckpointStore(str(tmp_path), keep_last=5).open_for_writing("a") as store:
        for step in (10, 20, 30):
            store.save(step, snapshot_of(step), metric=float(step))
        store.save(20, snapshot_of(20))
        assert [(entry.step, entry.metric) for entry in store.entries] == [(20, 20.0), (10, 10.0)]
        store.save(20, snapshot_of(21))
        assert [(entry.step, entry.metric) for entry in store.entries] == [(20, 20.0), (10, 10.0)]
        assert checkpoint_files(store) == {entry.name for entry in store.entries}


@pytest.mark.parametrize("harm", ["flipped", "shorter", "missing"])
def test_a_damaged_newest_falls_back_and_says_so(
    output: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointStore(output).open_for_writing("a") as store:
        for step in (1, 2, 3):
            store.save(step, snapshot_of(step))
        newest = store.entries[0]
        uri = storage.join(store.folder_uri, newest.name)
        if harm == "flipped":
            damage(store, newest)
        elif harm == "shorter":
            storage.write_bytes(uri, storage.read_bytes(uri)[:-1])
        else:
            storage.delete(uri)
    reason = "no such object|does not exist" if harm == "missing" else "damaged: .* bytes with SHA-256"
    with CheckpointStore(output).open_for_writing("b") as store:
        loaded = store.load()
        assert loaded is not None
        assert bits(loaded.state) == bits(state_of(2))
        assert [skipped.name for skipped in loaded.skipped] == [newest.name]
        assert re.search(reason, loaded.skipped[0].reason)
        assert f"checkpoint {newest.name} skipped, falling back to {loaded.entry.name}" in caplog.text
        # The same steps come again, to the same file, which is whole then.
        assert store.save(3, snapshot_of(3)).name == newest.name
        assert steps(store) == [3, 2, 1]
        store.save(4, snapshot_of(4))
        assert steps(store) == [4, 3, 2]
        assert checkpoint_files(store) == {entry.name for entry in store.entries}
    again = CheckpointStore(output).load()
    assert again is not None
    assert (again.entry.step, again.skipped) == (4, ())


def test_a_damaged_one_goes_with_the_next_save(tmp_path: Path) -> None:
    with CheckpointStore(str(tmp_path)).open_for_writing("a") as store:
        for step in (1, 2):
            store.save(step, snapshot_of(step))
        damaged = store.entries[0]
        damage(store, damaged)
        loaded = store.load()
        assert loaded is not None
        assert loaded.entry.step == 1
        assert damaged.name in checkpoint_files(store)
        store.save(5, snapshot_of(5))
        assert steps(store) == [5, 1]
        assert checkpoint_files(store) == {entry.name for entry in store.entries}


def test_no_whole_one_left_names_them_all(output: str) -> None:
    with CheckpointStore(output).open_for_writing("a") as store:
        for step in (1, 2):
            store.save(step, snapshot_of(step), metric=1.0)
            damage(store, store.entries[0])
        for best in (False, True):
            with pytest.raises(CheckpointError, match="no checkpoint can be loaded") as raised:
                store.load(best=best)
            assert all(entry.name in str(raised.value) for entry in store.entries if not best)
        assert steps(store) == [2, 1]  # nothing is forgotten for that


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b'{"format_version": 1, "checkpoints": [{"name": "../x"}]}']
)
def test_without_a_whole_pointer_the_names_are_gone_by(
    output: str, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointStore(output).open_for_writing("a") as store:
        for step in (1, 2, 3):
            store.save(step, snapshot_of(step))
        damage(store, store.entries[0])
        kept = store.entries
    pointer_uri = storage.join(store.folder_uri, POINTER_NAME)
    storage.delete(pointer_uri)
    if content is not None:
        storage.write_bytes(pointer_uri, content)
    reader = CheckpointStore(output).load()
    assert reader is not None
    assert (reader.entry.step, len(reader.skipped)) == (2, 1)
    assert "going by the names of the 3 checkpoint files" in caplog.text
    with CheckpointStore(output).open_for_writing("b") as store:
        assert [entry.name for entry in store.entries] == [entry.name for entry in kept]
        assert bits(store.load()) is not None
        store.save(4, snapshot_of(4))
        assert steps(store) == [4, 2, 1]


def test_a_pointer_cannot_lead_elsewhere(tmp_path: Path) -> None:
    entry = {"name": "../../secret", "step": 1, "bytes": 1, "sha256": "0", "metric": None}
    fields = {"format_version": 1, "writer": "w", "checkpoints": [entry]}
    assert Pointer.from_json(json.dumps(fields).encode(), "p") is None


def test_a_pointer_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    uri = str(tmp_path / "checkpoints" / POINTER_NAME)
    storage.write_bytes(uri, b'{"format_version": 2}')
    for _ in range(2):  # the lease is given back
        with pytest.raises(CheckpointError, match="has format version 2; expected 1: use the version"):
            CheckpointStore(str(tmp_path)).open_for_writing("a")
    assert storage.read_bytes(uri) == b'{"format_version": 2}'


def test_a_reader_follows_a_writer_that_removes_what_it_was_about_to_read(
    output: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointStore(output, keep_last=1).open_for_writing("a") as store:
        store.save(1, snapshot_of(1))
        read_bytes = storage.read_bytes
        reads = 0

        def overtaken(uri: str) -> bytes:
            nonlocal reads
            if uri.endswith(".safetensors") and (reads := reads + 1) == 1:
                store.save(2, snapshot_of(2))
            return read_bytes(uri)

        monkeypatch.setattr(storage, "read_bytes", overtaken)
        loaded = CheckpointStore(output).load()
        assert loaded is not None
        assert (loaded.entry.step, loaded.skipped, reads) == (2, (), 2)
        assert "skipped" not in caplog.text


def test_nothing_yet_is_no_error_but_a_missing_bucket_is(tmp_path: Path, bucket: str) -> None:
    assert CheckpointStore(str(tmp_path / "none")).load() is None
    assert CheckpointStore(f"{bucket}/none").load() is None
    missing = CheckpointStore("gs://no-such-bucket-here/run")
    with pytest.raises(NotFoundError, match="no such bucket"):
        missing.load()
    with pytest.raises(NotFoundError, match="no such bucket"):
        missing.open_for_writing("a")


def test_only_an_open_store_saves(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    with pytest.raises(CheckpointError, match="not open for writing; call open_for_writing"):
        store.save(1, snapshot_of(1))
    with pytest.raises(CheckpointError, match="keep_last is 0; expected 1 or more"):
        CheckpointStore(str(tmp_path), keep_last=0)


def test_warnings_show_without_any_set_up(tmp_path: Path) -> None:
    """Python's handler of last resort prints them, as long as nobody turns them off."""
    assert logging.getLogger("trainer.checkpoint").isEnabledFor(logging.WARNING)
    assert logging.getLogger("trainer.checkpoint").propagate
