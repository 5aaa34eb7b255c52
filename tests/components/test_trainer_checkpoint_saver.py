"""Saving beside the loop, when to save, and the request to stop."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.checkpoint import (
    AsyncSaver,
    CheckpointError,
    CheckpointStore,
    LeaseLostError,
    SaveReport,
    SaveSchedule,
    StopRequest,
)
from trainer.checkpoint.state_file import Snapshot, restore
from voxsrc.checkpoint_interval import (
    LARGEST_DELAY_SHARE,
    LONGEST_INTERVAL_S,
    SHORTEST_INTERVAL_S,
    interval_s,
)
from voxsrc.errors import ConfigError, StorageError

TIMEOUT_S = 300.0


class GatedStore:
    """Saves into memory, one whenever `let_go` is called."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.saved: list[tuple[int, float | None, dict[str, Any]]] = []
        self.failure: BaseException | None = None

    def save(self, step: int, copied: Snapshot, *, metric: float | None = None) -> None:
        self.begun.release()
        assert self.gate.acquire(timeout=TIMEOUT_S)
        if self.failure is not None:
            raise self.failure
        self.saved.append((step, metric, restore(bytes(copied.content()))))

    def let_go(self, times: int = 1) -> None:
        self.gate.release(times)

    @property
    def saved_steps(self) -> list[int]:
        return [step for step, _, _ in self.saved]


def state_of(step: int) -> dict[str, Any]:
    return {"step": step, "weight": torch.full((50,), float(step))}


def test_what_is_saved_is_the_state_at_submission() -> None:
    store = GatedStore()
    weight = torch.zeros(50)
    with AsyncSaver(store) as saver:
        saver.submit(1, {"weight": weight})
        assert store.begun.acquire(timeout=TIMEOUT_S)
        assert store.saved_steps == []
        weight.fill_(7.0)
        store.let_go()
        report = saver.wait()
        assert store.saved_steps == [1]
    assert store.saved[0][2]["weight"].tolist() == [0.0] * 50
    assert report is not None
    assert (report.step, report.error) == (1, None)
    assert saver.take_reports() == [report]
    assert saver.take_reports() == []


def test_reports_say_what_was_measured() -> None:
    store = GatedStore()
    store.let_go(9)
    ticks = iter(range(100))
    saver = AsyncSaver(store, monotonic=lambda: float(next(ticks)))
    assert saver.submit(1, state_of(1)) == 1.0
    report = saver.wait()
    assert report is not None
    assert (report.copy_s, report.write_s) == (1.0, 1.0)
    assert report.num_bytes > 200


def test_a_newer_state_replaces_one_that_waits() -> None:
    store = GatedStore()
    saver = AsyncSaver(store)
    saver.submit(1, state_of(1))
    assert store.begun.acquire(timeout=TIMEOUT_S)
    for step in (2, 3, 4):
        saver.submit(step, state_of(step))
    store.let_go(9)
    saver.wait()
    assert store.saved_steps == [1, 4]
    assert [saved["weight"][0].item() for _, _, saved in store.saved] == [1.0, 4.0]
    assert [report.step for report in saver.take_reports()] == [1, 4]


@pytest.mark.parametrize(
    ("metrics", "kept"),
    [
        ((5.0, None, None), [2, 4]),
        ((5.0, 4.0, None), [3, 4]),
        ((4.0, 5.0, None), [2, 4]),
        ((4.0, 4.0, 4.0), [2, 4]),
        ((5.0, 4.0, 3.0), [4]),
        ((5.0, 4.0, float("nan")), [3, 4]),
        ((None, None, 3.0), [4]),
    ],
)
def test_one_that_may_be_the_best_is_not_lost(metrics: tuple[float | None, ...], kept: list[int]) -> None:
    store = GatedStore()
    saver = AsyncSaver(store)
    saver.submit(1, state_of(1))
    assert store.begun.acquire(timeout=TIMEOUT_S)
    for step, metric in enumerate(metrics, start=2):
        saver.submit(step, state_of(step), metric=metric)
    store.let_go(9)
    saver.wait()
    assert store.saved_steps == [1, *kept]
    assert [saved["weight"][0].item() for _, _, saved in store.saved] == [1.0, *kept]


def test_memory_is_used_again() -> None:
    store = GatedStore()
    store.let_go(99)
    saver = AsyncSaver(store)
    buffers = set()
    for step in range(1, 6):
        saver.submit(step, state_of(step))
        saver.wait()
        assert saver._spare is not None
        buffers.add(saver._spare.buffer.data_ptr())
    assert len(buffers) == 1
    assert [saved["weight"][0].item() for _, _, saved in store.saved] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_refused_save_is_reported_and_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    store = GatedStore()
    store.let_go(9)
    store.failure = StorageError("disk full")
    with AsyncSaver(store) as saver:
        saver.submit(1, state_of(1))
        report = saver.wait()
        assert report is not None
        assert report.error is store.failure
        assert "checkpoint of step 1 not saved, training goes on: disk full" in caplog.text
        store.failure = None
        saver.submit(2, state_of(2))
        report = saver.wait()
        assert report is not None
        assert report.error is None
    assert store.saved_steps == [2]


@pytest.mark.parametrize("seen_by", ["submit", "wait", "exit"])
def test_any_other_failure_is_raised_once_by_the_next_call(seen_by: str) -> None:
    store = GatedStore()
    store.let_go(9)
    store.failure = LeaseLostError("taken over")
    saver = AsyncSaver(store)
    saver.submit(1, state_of(1))
    saver._join()
    calls: dict[str, Callable[[], object]] = {
        "submit": lambda: saver.submit(2, state_of(2)),
        "wait": saver.wait,
        "exit": lambda: saver.__exit__(None, None, None),
    }
    with pytest.raises(LeaseLostError, match="taken over"):
        calls[seen_by]()
    saver.wait()
    assert store.saved == []


def test_the_error_that_ended_training_is_not_hidden(caplog: pytest.LogCaptureFixture) -> None:
    store = GatedStore()
    store.let_go(9)
    store.failure = LeaseLostError("taken over")
    with pytest.raises(ZeroDivisionError), AsyncSaver(store) as saver:
        saver.submit(1, state_of(1))
        raise ZeroDivisionError
    assert "the last checkpoint was not saved: taken over" in caplog.text


def test_what_cannot_be_saved_is_refused_by_submit() -> None:
    with AsyncSaver(GatedStore()) as saver, pytest.raises(CheckpointError, match="a is a object"):
        saver.submit(1, {"a": object()})


def test_a_process_ends_only_when_its_last_save_is_done(tmp_path: Path) -> None:
    code = (
        "import sys, torch\n"
        "from trainer.checkpoint import AsyncSaver, CheckpointStore\n"
        "store = CheckpointStore(sys.argv[1]).open_for_writing('a')\n"
        "saver = AsyncSaver(store)\n"
        "for step in range(1, 4): saver.submit(step, {'weight': torch.full((2_000_000,), float(step))})\n"
        "sys.exit('stopped')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "stopped\n")
    loaded = CheckpointStore(str(tmp_path)).load()
    assert loaded is not None
    assert loaded.entry.step == 3
    assert torch.equal(loaded.state["weight"], torch.full((2_000_000,), 3.0))


def test_together_with_a_store(tmp_path: Path) -> None:
    with CheckpointStore(str(tmp_path)).open_for_writing("a") as store:
        with AsyncSaver(store) as saver:
            for step in range(1, 30):
                saver.submit(step, state_of(step), metric=abs(step - 17.0))
        assert store.entries[0].step == 29
        assert store.best is not None
        assert (store.best.step, store.best.metric) == (17, 0.0)


# When to save


def report(copy_s: float, write_s: float, error: StorageError | None = None) -> SaveReport:
    return SaveReport(1, copy_s, write_s, 1000, error)


def test_the_interval_is_young_and_dalys() -> None:
    assert interval_s(2.0, 10_000.0) == pytest.approx(200.0)
    assert interval_s(0.001, 3600.0) == SHORTEST_INTERVAL_S
    assert interval_s(600.0, 86_400.0 * 7) == LONGEST_INTERVAL_S
    assert interval_s(2.0, 10_000.0, delay_s=10.0) == pytest.approx(500.0)  # 2 % of it
    assert interval_s(4000.0, 100.0) == 4000.0


@given(st.floats(1e-3, 1e3), st.floats(60, 1e6), st.floats(0, 1))
def test_the_interval_keeps_its_promises(save_s: float, between_s: float, delayed: float) -> None:
    interval = interval_s(save_s, between_s, delay_s=save_s * delayed)
    assert interval >= SHORTEST_INTERVAL_S
    assert interval >= save_s
    assert save_s * delayed <= interval * LARGEST_DELAY_SHARE * (1 + 1e-9)
    assert interval_s(save_s * 2, between_s) >= interval_s(save_s, between_s)


def test_the_schedule_adapts_to_what_saves_cost() -> None:
    now = 100.0
    schedule = SaveSchedule(mean_time_between_preemptions_s=10_000.0, monotonic=lambda: now)
    assert schedule.interval_s == SHORTEST_INTERVAL_S
    now += SHORTEST_INTERVAL_S - 0.1
    assert not schedule.due()
    now += 0.2
    assert schedule.due()
    schedule.started()
    assert not schedule.due()
    schedule.measured(report(0.5, 1.5))
    assert schedule.interval_s == pytest.approx(200.0)
    schedule.measured(report(0.5, 7.5))  # mean of 2 s and 8 s
    assert schedule.interval_s == pytest.approx((2 * 5 * 10_000) ** 0.5)
    schedule.measured(report(9.0, 99.0, StorageError("disk full")))
    assert schedule.interval_s == pytest.approx((2 * 5 * 10_000) ** 0.5)
    now += 316
    assert not schedule.due()
    now += 1
    assert schedule.due()


def test_a_fixed_interval_stays() -> None:
    now = 0.0
    schedule = SaveSchedule(fixed_s=7.0, monotonic=lambda: now)
    schedule.measured(report(1.0, 100.0))
    assert schedule.interval_s == 7.0
    now = 6.9
    assert not schedule.due()
    now = 7.0
    assert schedule.due()
    every_step = SaveSchedule(fixed_s=0, monotonic=lambda: now)
    every_step.started()
    every_step.measured(report(1.0, 1.0))
    assert every_step.due()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed_s": -1.0}, "checkpoint_interval_s is -1.0; expected 0 or more"),
        ({"fixed_s": float("nan")}, "checkpoint_interval_s is nan"),
        ({"mean_time_between_preemptions_s": 0.0}, "mean_time_between_preemptions_s is 0.0; expected more"),
        ({"shortest_s": 50.0, "longest_s": 40.0}, "50.0 and 40.0 s; expected 0 < shortest <= longest"),
    ],
)
def test_impossible_schedules_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SaveSchedule(**options)


# Stopping


def test_sigterm_is_noted_and_the_handler_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
    assert signal.getsignal(signal.SIGTERM) is before
