"""Who may write to a folder: refusal, take-over, and clocks that do not agree; no time passes here."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gcs_server import GcsServer
from voxsrc import lease as lease_module
from voxsrc import storage
from voxsrc.errors import StorageError
from voxsrc.lease import (
    HEARTBEAT_S,
    LEASE_NAME,
    LEASE_S,
    Clock,
    Lease,
    LeaseLostError,
    LeaseRecord,
    WriterActiveError,
)
from voxsrc.processes import pid_scope, process_started

fork = multiprocessing.get_context("fork")


@dataclass
class World:
    """The time that passes only when somebody waits, and what happens then."""

    now: float = 1_700_000_000.0
    on_wait: Callable[[], None] = field(default=lambda: None)
    waited_s: float = 0.0

    def clock(self, skew_s: float = 0.0) -> Clock:
        return Clock(now=lambda: self.now + skew_s, monotonic=lambda: self.waited_s, sleep=self.wait)

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        self.waited_s += seconds
        self.on_wait()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(params=["local", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "checkpoints")
    return f"{request.getfixturevalue('bucket')}/checkpoints"


def read(folder: str) -> LeaseRecord:
    record = LeaseRecord.from_json(storage.read_bytes(storage.join(folder, LEASE_NAME)))
    assert record is not None
    return record


def taken_elsewhere(folder: str, world: World, run_id: str = "other", skew_s: float = 0.0) -> Lease:
    """A lease of a process that cannot be seen from here."""
    lease = Lease(folder, run_id, world.clock(skew_s))
    lease._record = replace(lease._record, pid_scope="another machine", host="node-7", pid=4242)
    lease.acquire()
    return lease


def beating(lease: Lease, world: World) -> Callable[[], None]:
    """What makes a lease give its signs of life while others wait."""
    last_s = world.waited_s

    def beat() -> None:
        nonlocal last_s
        if world.waited_s - last_s >= HEARTBEAT_S:
            last_s = world.waited_s
            lease.beat()

    return beat


def test_the_first_takes_it_and_the_next_after_its_release(folder: str, world: World) -> None:
    first = Lease(folder, "first", world.clock())
    first.acquire()
    assert (read(folder).run_id, read(folder).pid, read(folder).pid_scope) == (
        "first",
        os.getpid(),
        pid_scope(),
    )
    first.release()
    Lease(folder, "second", world.clock()).acquire()
    assert (read(folder).run_id, read(folder).released, world.waited_s) == ("second", False, 0.0)
    with pytest.raises(LeaseLostError, match="was released"):
        first.check()


def test_a_process_that_can_be_seen_to_live_is_refused_at_once(folder: str, world: World) -> None:
    Lease(folder, "first", world.clock()).acquire()
    world.now += 3.0
    with pytest.raises(WriterActiveError) as raised:
        Lease(folder, "second", world.clock()).acquire()
    assert world.waited_s == 0.0
    assert (
        f"run 'first' on host {read(folder).host}, process {os.getpid()}, since 2023-11-14T22:13:20"
        in str(raised.value)
    )
    assert "last sign of life 3 s ago" in str(raised.value)
    assert "stop that one, or choose another output" in str(raised.value)
    assert read(folder).run_id == "first"


def test_a_process_that_lives_but_gives_no_sign_is_replaced(folder: str, world: World) -> None:
    first = Lease(folder, "first", world.clock())
    first.acquire()
    world.now += LEASE_S + 1
    Lease(folder, "second", world.clock()).acquire()
    first.beat()
    with pytest.raises(
        LeaseLostError, match=r"writer\.json: run 'second' on host .* has taken over; expected it"
    ):
        first.check()
    first.beat()
    first.release()
    assert (read(folder).run_id, read(folder).released) == ("second", False)


def take_and_die(folder: str, clock: Clock) -> None:
    Lease(folder, "killed", clock).acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_dead_process_of_this_machine_is_replaced_at_once(tmp_path: Path, world: World) -> None:
    child = fork.Process(target=take_and_die, args=(str(tmp_path), world.clock()))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert read(str(tmp_path)).run_id == "killed"
    Lease(str(tmp_path), "second", world.clock()).acquire()
    assert (read(str(tmp_path)).run_id, world.waited_s) == ("second", 0.0)


def test_a_process_that_waits_to_be_reaped_counts_as_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process_started(child.pid) not in ("", process_started(1))
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_started(child.pid) == ""
    child.communicate()
    assert process_started(child.pid) == ""


def test_a_process_number_that_is_used_again_is_not_the_holder(folder: str, world: World) -> None:
    first = Lease(folder, "first", world.clock())
    first._record = replace(first._record, pid_started="1")
    first.acquire()
    Lease(folder, "second", world.clock()).acquire()
    assert (read(folder).run_id, world.waited_s) == ("second", 0.0)


def test_an_unseen_holder_that_lives_is_found_out_within_a_heartbeat(folder: str, world: World) -> None:
    other = taken_elsewhere(folder, world)
    world.on_wait = beating(other, world)
    with pytest.raises(WriterActiveError, match="run 'other' on host node-7, process 4242"):
        Lease(folder, "second", world.clock()).acquire()
    assert world.waited_s <= HEARTBEAT_S + 1
    other.check()
    assert read(folder).run_id == "other"


@pytest.mark.parametrize("skew_s", [-3600.0, 0.0, 3600.0])
def test_clocks_that_disagree(tmp_path: Path, world: World, skew_s: float) -> None:
    """A holder whose clock is ahead is not taken for dead, nor one that is dead waited for without end."""
    folder = str(tmp_path)
    other = taken_elsewhere(folder, world, skew_s=skew_s)
    world.on_wait = beating(other, world)
    if skew_s >= 0:
        with pytest.raises(WriterActiveError):
            Lease(folder, "second", world.clock()).acquire()
        other.check()
    world.on_wait = lambda: None
    began_s = world.waited_s
    Lease(folder, "third", world.clock()).acquire()
    assert world.waited_s - began_s <= LEASE_S
    other.beat()
    with pytest.raises(LeaseLostError, match="run 'third'"):
        other.check()


@pytest.mark.parametrize(("gone_s", "wait_s"), [(0.0, LEASE_S), (30.0, LEASE_S - 30.0), (60.0, 0.0)])
def test_a_preempted_pod_waits_only_for_the_rest_of_the_lease(
    folder: str, world: World, gone_s: float, wait_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    taken_elsewhere(folder, world)
    world.now += gone_s
    Lease(folder, "again", world.clock()).acquire()
    assert world.waited_s == pytest.approx(wait_s)
    assert ("watching it for up to" in caplog.text) == (wait_s > 0)
    assert read(folder).run_id == "again"


def test_a_holder_that_releases_while_it_is_watched_is_followed_at_once(folder: str, world: World) -> None:
    other = taken_elsewhere(folder, world)
    world.on_wait = other.release
    Lease(folder, "second", world.clock()).acquire()
    assert world.waited_s <= 1.0
    assert read(folder).run_id == "second"


def test_of_two_that_wait_for_one_lease_only_one_gets_it(folder: str, world: World) -> None:
    taken_elsewhere(folder, world)
    rival = Lease(folder, "rival", world.clock())
    world.on_wait = lambda: (
        rival.acquire() if world.waited_s >= LEASE_S and read(folder).run_id == "other" else None
    )
    with pytest.raises(WriterActiveError, match="run 'rival'"):
        Lease(folder, "second", world.clock()).acquire()
    rival.check()


def test_threads_that_race_for_an_empty_folder(tmp_path: Path) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def race(number: int) -> None:
        lease = Lease(str(tmp_path), f"run {number}")
        start.wait()
        try:
            lease.acquire()
            outcomes.append(lease.writer)
        except WriterActiveError:
            outcomes.append("refused")

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes)[1:] == ["refused"] * 7 or sorted(outcomes)[:-1] == ["refused"] * 7
    assert read(str(tmp_path)).writer in outcomes


def test_a_damaged_lease_holds_nobody_off(folder: str, world: World) -> None:
    storage.write_bytes(storage.join(folder, LEASE_NAME), b"{")
    Lease(folder, "first", world.clock()).acquire()
    assert (read(folder).run_id, world.waited_s) == ("first", 0.0)


def test_a_lease_that_was_removed_is_lost(folder: str, world: World) -> None:
    lease = Lease(folder, "first", world.clock())
    lease.acquire()
    storage.delete(storage.join(folder, LEASE_NAME))
    lease.beat()
    with pytest.raises(LeaseLostError, match="was removed by somebody else"):
        lease.check()


def test_a_heartbeat_whose_answer_was_lost_is_still_ours(
    bucket: str, gcs_server: GcsServer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(f"{bucket}/checkpoints", "first", world.clock())
    lease.acquire()
    monkeypatch.setenv("VOXSRC_STORAGE_DEADLINE_S", "0.01")
    gcs_server.fail("lose_answer", method="POST", path="/upload/")
    gcs_server.fail("status", method="POST", path="/upload/", times=1000)
    with pytest.raises(StorageError, match="nothing has moved"):
        lease.beat()
    gcs_server.clear()
    monkeypatch.setenv("VOXSRC_STORAGE_DEADLINE_S", "20")
    for _ in range(2):
        lease.beat()
        lease.check()


def test_the_heartbeat_thread_beats_through_failures_and_ends_when_the_lease_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease_module, "HEARTBEAT_S", 0.001)
    lease = Lease(str(tmp_path), "first")
    lease.acquire()
    beats, failures = threading.Semaphore(0), threading.Semaphore(0)
    write_bytes = storage.write_bytes
    failing = threading.Event()

    def watched(*args: object, **options: object) -> object:
        if failing.is_set():
            failures.release()
            raise StorageError("no network")
        beats.release()
        return write_bytes(*args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(storage, "write_bytes", watched)
        lease.start_heartbeat()
        for _ in range(3):
            assert beats.acquire(timeout=300)
        failing.set()
        for _ in range(3):
            assert failures.acquire(timeout=300)
        failing.clear()
        while beats.acquire(blocking=False):
            continue
        assert beats.acquire(timeout=300)
    assert caplog.text.count("the heartbeat failed and will be tried again: no network") == 1
    storage.write_bytes(storage.join(str(tmp_path), LEASE_NAME), b"{}")
    assert lease._thread is not None
    lease._thread.join(timeout=300)
    assert not lease._thread.is_alive()
    with pytest.raises(LeaseLostError, match="an unknown run has taken over"):
        lease.check()
    lease.release()


def test_as_a_context_it_is_held_until_the_end(folder: str) -> None:
    with Lease(folder, "first") as lease:
        lease.confirm()
        with pytest.raises(WriterActiveError, match="run 'first' on host"):
            Lease(folder, "second").acquire()
    assert read(folder).released
    with Lease(folder, "second"):
        assert read(folder).run_id == "second"


def test_a_holder_that_asks_learns_at_once_that_it_was_replaced(folder: str, world: World) -> None:
    first = taken_elsewhere(folder, world)
    world.now += LEASE_S
    Lease(folder, "second", world.clock()).acquire()
    first.check()  # knows nothing of it yet
    with pytest.raises(LeaseLostError, match="run 'second'"):
        first.confirm()


def test_release_warns_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lease = Lease(str(tmp_path), "first")
    lease.acquire()

    def refuse(*args: object, **options: object) -> None:
        raise StorageError("no network")

    monkeypatch.setattr(storage, "write_bytes", refuse)
    lease.release()
    assert "not released, the next run may wait: no network" in caplog.text
