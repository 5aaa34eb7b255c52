"""What `voxsrc pipeline compile` and `run-local` hand on."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from voxsrc.pipelines import compile as compiling
from voxsrc.pipelines import local

Run = Callable[..., int]


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_compile_hands_on_check_and_the_exit_code(
    check: list[str], voxsrc_pipeline: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(compiling, "compile_all", lambda *, only_check: asked.append(only_check) or 7)
    assert voxsrc_pipeline("compile", *check) == 7
    assert asked == [bool(check)]


def test_compile_shows_a_traceback_if_asked_and_names_no_flag_that_it_lacks(
    voxsrc_pipeline: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compile_all = compiling.compile_all
    monkeypatch.setattr(compiling, "compile_all", lambda **flags: compile_all(tmp_path, **flags))
    assert voxsrc_pipeline("compile", "--debug") == 1
    shown = capsys.readouterr().err
    assert f"error: {tmp_path}: no pyproject.toml there; expected the repository's root" in shown
    assert "Traceback" in shown
    assert "--root" not in shown


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("kfp", ["compile"]),
        ("kfp", ["watch", "a-run", "--once", "--endpoint", "http://localhost:1"]),
        ("docker", ["run-local", "extract", "--set", "audio=/a", "--set", "output=/o"]),
    ],
)
def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    package: str, command: list[str], cloud_env: Path
) -> None:
    code = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "from voxsrc.cli import main\n"
        f"sys.exit(main(['pipeline', *{command}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the Python package {package} is not installed in {sys.prefix}; ")
    assert "pip install --editable '.[pipelines]'" in done.stderr


def test_run_local_hands_on_arguments_and_flags(
    voxsrc_pipeline: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: dict[str, Any] = {}

    def run_local(package: str, arguments: dict[str, Any], **flags: Any) -> Any:
        asked.update(flags, package=package, arguments=arguments)
        metrics = {"evaluation": {"eer": 0.02}}
        return SimpleNamespace(table=lambda: "a table", metrics=metrics, files={"report": tmp_path / "r"})

    monkeypatch.setattr(local, "run_local", run_local)
    for name, text in (("data", "audio: /a\nparts: [0/1]"), ("more", "output: /o")):
        (tmp_path / f"{name}.yaml").write_text(text)
    files = ["--arguments", f"{tmp_path}/data.yaml", "--arguments", f"{tmp_path}/more.yaml"]
    given = [*files, "--set", "audio=/b", "--image", "train=t:1", "--env", "A=b=c"]
    assert voxsrc_pipeline("run-local", "extract", *given, "--mount", "/a", "--retries", "2") == 0
    assert asked["package"] == "extract"
    assert asked["arguments"] == {"audio": "/b", "parts": ["0/1"], "output": "/o"}
    assert asked["images"] == {"train": "t:1"}
    assert asked["environment"] == {"A": "b=c"}
    assert asked["mounts"] == [Path("/a")]
    assert asked["retries"] == 2
    assert capsys.readouterr().out == f"a table\nevaluation: eer 0.02\nreport: {tmp_path / 'r'}\n"


def test_a_flag_without_a_value_is_refused(voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--set", "audio=/a", "--set", "output=/o"]
    assert voxsrc_pipeline("run-local", "extract", *given, "--image", "t:1") == 1
    assert "--image 't:1': expected NAME=VALUE" in capsys.readouterr().err


def test_building_the_command_imports_nothing_heavy() -> None:
    code = (
        "import argparse, sys\n"
        "from voxsrc.commands import pipeline\n"
        "pipeline.add_commands(argparse.ArgumentParser().add_subparsers())\n"
        "heavy = {'kfp', 'kubernetes', 'yaml', 'numpy', 'urllib3'} & sys.modules.keys()\n"
        "sys.exit(', '.join(heavy) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
