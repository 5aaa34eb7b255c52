"""SIGKILL at random instants of opening, loading and saving, and what is found afterwards."""

import multiprocessing
import os
import random
import signal
import struct
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch

from trainer.checkpoint import AsyncSaver, CheckpointStore
from trainer.checkpoint.state_file import State, snapshot
from voxsrc import storage
from voxsrc.storage.backend import TEMP_PREFIX

fork = multiprocessing.get_context("fork")

NUM_KILLS = 30
KEEP_LAST = 2
# Beside those kept, the best, what a kill between pointer and removal leaves, and the file of a cut save.
MOST_FILES = KEEP_LAST + 1 + 2 + 1
ANNOUNCEMENT = struct.Struct("<cq")  # B(egun) or S(aved), step


def state_of(step: int) -> State:
    weight = torch.arange(20_000, dtype=torch.float32) + step
    return {"step": step, "weight": weight, "moments": [weight * 2, (weight * 3).bfloat16()]}


def metric_of(step: int) -> float:
    return float((step * 37) % 101)


def save_for_ever(output: str, beside: bool, announce: int) -> None:
    torch.set_num_threads(1)
    with CheckpointStore(output, keep_last=KEEP_LAST).open_for_writing("killed") as store:
        loaded = store.load()
        step = loaded.entry.step if loaded is not None else 0
        saver = AsyncSaver(store)
        while True:
            step += 1
            os.write(announce, ANNOUNCEMENT.pack(b"B", step))
            if beside:
                saver.submit(step, state_of(step), metric=metric_of(step))
                for report in saver.take_reports():
                    os.write(announce, ANNOUNCEMENT.pack(b"S", report.step))
            else:
                store.save(step, snapshot(state_of(step)), metric=metric_of(step))
                os.write(announce, ANNOUNCEMENT.pack(b"S", step))


def run_until_killed(output: str, beside: bool, life_s: float) -> tuple[int, int]:
    """The last steps that were begun and known to be saved; 0 for none."""
    reader, writer = os.pipe()
    child = fork.Process(target=save_for_ever, args=(output, beside, writer))
    child.start()
    os.close(writer)
    assert child.pid is not None
    assert not wait([child.sentinel], timeout=life_s), "the child has ended by itself"
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    begun = saved = 0
    with os.fdopen(reader, "rb") as announced:
        for kind, step in ANNOUNCEMENT.iter_unpack(announced.read()):
            if kind == b"B":
                begun = max(begun, step)
            else:
                saved = max(saved, step)
    return begun, saved


@pytest.mark.parametrize("where", ["local", "bucket"])
def test_sigkill_at_any_instant_leaves_the_newest_or_the_one_before(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    output = str(tmp_path) if where == "local" else f"{request.getfixturevalue('bucket')}/run"
    draw = random.Random(where)
    before = cut_saves = 0
    typical_s = 0.05  # from the start to the first saves; adapted, as machines differ
    for kill in range(NUM_KILLS):
        beside = kill % 2 == 1
        begun, saved = run_until_killed(output, beside, draw.uniform(0.1, 2.0) * typical_s)
        typical_s *= 1.3 if begun == 0 else 0.9 if saved > before + 3 else 1.0
        reader = CheckpointStore(output)
        loaded = reader.load()
        step = loaded.entry.step if loaded is not None else 0
        assert max(before, saved) <= step <= max(before, begun)
        if not beside:
            assert step - max(before, saved) <= 1
        if loaded is not None:
            assert loaded.skipped == ()
            assert loaded.state["step"] == step
            expected = state_of(step)
            assert torch.equal(loaded.state["weight"], expected["weight"])
            for found, moment in zip(loaded.state["moments"], expected["moments"], strict=True):
                assert torch.equal(found, moment)
            assert reader.best is not None
            assert reader.best.metric == min(metric_of(done) for done in range(1, step + 1))
        files = [name for info in storage.list_files(output) if "step-" in (name := storage.name(info.uri))]
        assert len(files) <= MOST_FILES, files
        cut_saves += begun > step
        before = step
    assert before >= NUM_KILLS / 3  # all this time, it got on
    assert cut_saves >= NUM_KILLS / 5  # and was hit in the middle of saves
    with CheckpointStore(output).open_for_writing("last") as store:
        named = {entry.name for entry in store.entries}
        files = [storage.name(info.uri) for info in storage.list_files(store.folder_uri)]
        assert {name for name in files if name.startswith("step-")} == named
    if where == "local":
        assert len([path for path in tmp_path.rglob("*") if path.name.startswith(TEMP_PREFIX)]) <= 2
