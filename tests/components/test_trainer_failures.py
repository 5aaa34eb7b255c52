"""Memory, disks, buckets and logs that fail while a training runs."""

import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import Command
from gcs_server import GcsServer
from steered_trainings import Arguments, at_step
from trainer.checkpoint import CheckpointStore
from trainer.training import Training
from training_runs import Result
from voxsrc import storage
from voxsrc.errors import StorageError

SMALL_DISK_BYTES = 700_000


def test_out_of_memory_says_which_batch_size_to_try(
    trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(_: Training) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    at_step(monkeypatch, {2: run_out})
    tuning = {"num_steps": 2, "crop_frames": 30, "learning_rate": {"kind": "constant"}}
    outcome = trainer(*arguments(batch_size=12, fine_tuning=tuning))
    assert outcome.code == 1
    assert "out of memory at batch_size 12, crops up to 30 frames" in outcome.error
    assert "--set batch_size=6" in outcome.error
    assert "Tried to allocate 20 GiB" in outcome.error


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of SMALL_DISK_BYTES; without the right to mount, a folder that refuses while `full` is in it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}"]
    mounted = subprocess.run(["mount", *options, "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        original = storage.write_bytes

        def write_bytes(uri: str, data: Any, **options: Any) -> Any:
            if (disk / "full").exists():
                raise StorageError(f"{uri}: cannot write: No space left on device")
            return original(uri, data, **options)

        monkeypatch.setattr(storage, "write_bytes", write_bytes)
    yield disk
    if not mounted.returncode:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> None:
    with (disk / "full").open("wb", buffering=0) as file:
        try:
            while file.tell() < 10 * SMALL_DISK_BYTES and file.write(b"x" * 4096) == 4096:
                pass
        except OSError as error:
            assert "No space left" in str(error)


def test_a_disk_that_is_full_for_a_while(
    trainer: Command,
    arguments: Arguments,
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert trainer(*arguments(output=tmp_path / "undisturbed")).code == 0
    at_step(monkeypatch, {5: lambda _: fill(small_disk), 15: lambda _: (small_disk / "full").unlink()})
    with caplog.at_level(logging.WARNING):
        outcome = trainer(*arguments(output=small_disk / "run"))
    assert outcome.code == 0, outcome.errors
    assert "not saved, training goes on" in caplog.text
    assert "No space left on device" in caplog.text
    assert Result.of(small_disk / "run") == Result.of(tmp_path / "undisturbed")


def test_a_disk_that_stays_full(
    trainer: Command,
    arguments: Arguments,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, {5: lambda _: fill(small_disk)})
        outcome = trainer(*arguments(output=small_disk / "run"))
    assert outcome.code == 1
    assert "No space left on device" in outcome.error
    assert not (small_disk / "run" / "model").exists()
    left = CheckpointStore(str(small_disk / "run")).load()
    assert left is not None
    assert left.skipped == ()
    assert left.entry.step <= 5


def test_a_bucket_that_may_not_be_written(
    trainer: Command, arguments: Arguments, bucket: str, gcs_server: GcsServer
) -> None:
    gcs_server.fail("status", method="POST", path="/upload", status=403, times=100)
    outcome = trainer(*arguments(output=f"{bucket}/run", num_steps=2))
    assert outcome.code == 1
    assert bucket in outcome.error
    assert "403" in outcome.error or "permission" in outcome.error


def test_a_bucket_that_is_not_there(trainer: Command, arguments: Arguments, gcs_server: GcsServer) -> None:
    outcome = trainer(*arguments(output="gs://no-such-bucket/run", num_steps=2))
    assert outcome.code == 1
    assert "gs://no-such-bucket" in outcome.error


def test_sigterm_when_nothing_can_be_saved_does_not_claim_to_have_saved(
    trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise StorageError("the network is away")

    def stop(_: Training) -> None:
        monkeypatch.setattr(CheckpointStore, "save", refuse)
        os.kill(os.getpid(), signal.SIGTERM)

    at_step(monkeypatch, {4: stop})
    outcome = trainer(*arguments())
    assert outcome.code == 1
    assert "stopped by SIGTERM after step 5, which is not saved (the network is away)" in outcome.error


def test_tensorboard_that_cannot_write_ends_no_training(
    trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
    with caplog.at_level(logging.WARNING):
        assert trainer(*arguments(num_steps=6)).code == 0
    assert caplog.text.count("TensorBoard's events are not written any more") == 1
