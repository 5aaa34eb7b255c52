"""What gcloud cannot tell: an error that says why, never an answer, and soon."""

import time
from pathlib import Path

import pytest

from cluster_objects import IMAGE, SETTINGS, Gcloud
from voxsrc.pipelines import cluster
from voxsrc.pipelines.cluster import GcloudError, Project, run_gcloud
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
    install_gcloud(programs, "exec /bin/sleep 60")
    monkeypatch.setattr(cluster, "GCLOUD_TIMEOUT_S", 0.05)
    began = time.monotonic()
    with pytest.raises(GcloudError, match=r"gcloud did not answer within 0\.05 s"):
        Project(Settings(SETTINGS, "x")).node_pools()
    assert time.monotonic() - began < 30


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
