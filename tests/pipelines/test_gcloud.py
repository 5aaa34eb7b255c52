"""What gcloud cannot tell: an error that says why, never an answer, and soon."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cluster_objects import IMAGE, SETTINGS, Gcloud
from voxsrc.pipelines.cluster import GcloudError, Project
from voxsrc.pipelines.gcloud import run_gcloud
from voxsrc.pipelines.settings import Settings


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of programs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install_gcloud(programs: Path, script: str) -> None:
    program = programs / "gcloud"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_gcloud_that_never_answers_is_ended(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_gcloud(programs, "/bin/sleep 60\n:")
    monkeypatch.setattr("voxsrc.pipelines.gcloud.GCLOUD_TIMEOUT_S", 0.05)
    began = time.monotonic()
    with pytest.raises(GcloudError, match=r"gcloud did not answer within 0\.05 s"):
        Project(Settings(SETTINGS, "x")).node_pools()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("ending", [subprocess.TimeoutExpired("gcloud", 30), KeyboardInterrupt()])
def test_what_gcloud_started_is_ended_with_it(
    ending: BaseException, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = programs / "pipe"
    os.mkfifo(pipe)
    install_gcloud(programs, f"(echo begun; exec /bin/sleep 20) >{pipe}\n:")

    writer = os.open(pipe, os.O_RDWR)  # else opening it would wait for one
    with pipe.open() as reader:

        def communicate(*_: Any, **__: Any) -> Any:
            assert reader.readline() == "begun\n"
            raise ending

        monkeypatch.setattr(subprocess.Popen, "communicate", communicate)
        began = time.monotonic()
        if isinstance(ending, KeyboardInterrupt):
            with pytest.raises(KeyboardInterrupt):
                run_gcloud(["version"])
        else:
            assert run_gcloud(["version"])[0] == 124
        os.close(writer)
        assert reader.read() == "", "nobody holds the pipe"
        assert time.monotonic() - began < 15


def test_gcloud_that_is_there_or_not(programs: Path) -> None:
    assert run_gcloud(["version"]) == (127, "", "gcloud is not installed")
    install_gcloud(programs, 'echo "$@"; echo words >&2; exit 3')
    assert run_gcloud(["a", "b"]) == (3, "a b\n", "words\n")


def test_an_error_says_why_nothing_is_known(gcloud: Gcloud) -> None:
    project = Project(Settings(SETTINGS, "x"), gcloud)
    for command in (*gcloud.answers, "compute machine-types describe"):
        gcloud.answers[command] = "WARNING: old\nERROR: not logged in"
    for ask in (project.node_pools, project.quotas, lambda: project.has_image(IMAGE.format("train"))):
        with pytest.raises(GcloudError, match=r"^ERROR: not logged in$"):
            ask()
    assert project.machine_size("m7-standard-8") is None


def test_a_setting_that_is_not_there_is_named(gcloud: Gcloud) -> None:
    project = Project(Settings({}, "x"), gcloud)
    with pytest.raises(GcloudError, match="VOXSRC_CLUSTER and VOXSRC_ZONE are not set"):
        project.node_pools()
    with pytest.raises(GcloudError, match="VOXSRC_REGION is not set"):
        project.quotas()
    assert project.machine_size("m7-standard-8") is None
    assert gcloud.calls == []
