"""The launcher: what becomes of its own flags, of empty values and of several processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.run
from torch.distributed.elastic.multiprocessing import SignalException

from trainer import launch, torchrun

ROOT = Path(__file__).resolve().parents[2]


def test_the_trainers_flags_pass_as_they_are() -> None:
    flags = ["--recipe", "demo", "--set", "num_steps=3", "--set=a= b", "--debug"]
    assert launch.command(flags) == ([sys.executable, "-m", "trainer", *flags], {})


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("", []),
        (" ; ", []),
        ("num_steps=10", ["num_steps=10"]),
        ("num_steps=10; batch_size = 8 ;", ["num_steps=10", "batch_size = 8"]),
        (
            "augment.babble.snr_db=[4, 15];learning_rate={kind: constant, initial: 0.1}",
            ["augment.babble.snr_db=[4, 15]", "learning_rate={kind: constant, initial: 0.1}"],
        ),
    ],
)
def test_overrides_are_divided_by_semicolons(text: str, overrides: list[str]) -> None:
    line, _ = launch.command(["--recipe", "demo", "--overrides", text])
    assert line[3:5] == ["--recipe", "demo"]
    assert line[5::2] == ["--set"] * len(overrides)
    assert line[6::2] == overrides


def test_overrides_come_after_what_is_set_one_by_one() -> None:
    line, _ = launch.command(["--overrides", "a=2", "--set", "a=1"])
    assert line[3:] == ["--set", "a=1", "--set", "a=2"]


def test_an_option_with_an_empty_value_is_not_given() -> None:
    flags = ["--overrides", "", "--resume", "", "--output", "o", "--set", "", "--debug"]
    line, _ = launch.command(flags)
    assert line[3:] == ["--output", "o", "--debug"]


def test_several_processes_are_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "cpu_count", lambda: 16)
    line, variables = launch.command(["--num-processes", "4", "--recipe", "demo"])
    assert line[:3] == [sys.executable, "-m", "trainer.torchrun"]
    assert line[-6:] == ["--nproc-per-node", "4", "-m", "trainer", "--recipe", "demo"]
    assert "--standalone" in line
    assert variables == {"OMP_NUM_THREADS": "4"}


def test_the_number_of_threads_is_the_users_if_given(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda path, line, environment: calls.append(environment))
    for given, expected in ((None, "1"), ("7", "7")):
        monkeypatch.setattr(launch, "cpu_count", lambda: 2)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert launch.main(["--num-processes", "2"]) == 0
        assert calls[-1]["OMP_NUM_THREADS"] == expected
        assert calls[-1]["PATH"] == os.environ["PATH"]


def test_torchrun_says_nothing_of_its_own_when_a_signal_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminated() -> Any:
        raise SignalException("Process 1 got signal: 15", signal.SIGTERM)

    monkeypatch.setattr(torch.distributed.run, "main", terminated)
    assert torchrun.main() == 1
    assert capsys.readouterr() == ("", "")


def test_torchrun_has_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(torch.distributed.run, "main", lambda: seen.append(sys.argv[1:]))
    monkeypatch.setattr(sys, "argv", ["torchrun.py", "--standalone", "-m", "trainer"])
    assert torchrun.main() == 0
    assert seen == [["--standalone", "-m", "trainer"]]


@pytest.mark.parametrize("count", ["0", "-1"])
def test_no_process_is_an_error(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main([f"--num-processes={count}"]) == 1
    assert capsys.readouterr().err == f"error: --num-processes is {count}; expected at least 1\n"


def test_run_local_becomes_the_trainer(tmp_path: Path) -> None:
    script = ROOT / "components/train/run_local.sh"
    output = tmp_path / "out put"
    done = subprocess.run(
        [script, "--recipe", "demi", "--features", "f", "--output", output],
        env={**os.environ, "PYTHON": sys.executable},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no recipe 'demi'")
    assert not output.exists()


def test_run_local_shows_its_own_and_the_trainers_help() -> None:
    script = ROOT / "components/train/run_local.sh"
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([script, "--help"], env=environment, capture_output=True, text=True, check=True)
    for word in ("run_local.sh --recipe", "--num-processes N", "--overrides TEXT", "--dry-run"):
        assert word in done.stdout
