"""gcp-cluster/create_storage.sh on a bucket and a repository that exist, made by it or by somebody else."""

import copy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_cli import CloudCli
from cloud_scripts import Cloud

THEIR_RULES = {"lifecycle": {"rule": [{"action": {"type": "Delete"}, "condition": {"age": 3000}}]}}
THEIR_POLICY = {"name": "keep-all", "action": {"type": "Keep"}, "condition": {"tagState": "any"}}


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Cloud]:
    with CloudCli() as cli:
        yield Cloud(tmp_path, cli)


@pytest.fixture
def made(empty: Cloud) -> Cloud:
    empty.succeed("create_storage")
    empty.cli.calls.clear()
    return empty


def commands_told(errors: str) -> list[list[str]]:
    """The commands at the ends of warnings."""
    return [shlex.split(line.rpartition(": ")[2]) for line in errors.splitlines() if "warning" in line]


def test_what_the_script_made_is_as_its_files_say_and_stays_so(made: Cloud) -> None:
    before = copy.deepcopy(made.state)
    assert len(before["buckets"]["some-bucket"]["lifecycle"]["lifecycle"]["rule"]) == 2
    assert len(before["repositories"]["images"]["cleanup"]) == 3
    done = made.run("create_storage")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert made.state == before


def test_a_bucket_is_not_there_without_its_rules_however_the_script_ends(empty: Cloud) -> None:
    empty.cli.fail_at = 2
    assert empty.run("create_storage").returncode == 1
    assert empty.state["buckets"]["some-bucket"]["lifecycle"] is not None
    assert empty.state["repositories"] == {}


def test_a_repository_that_the_script_had_no_time_to_finish_gets_its_policy(empty: Cloud) -> None:
    empty.cli.fail_at = 3
    assert empty.run("create_storage").returncode == 1
    assert empty.state["repositories"]["images"]["cleanup"] == []
    assert "warning" not in empty.run("create_storage").stderr
    assert len(empty.state["repositories"]["images"]["cleanup"]) == 3


def test_rules_of_somebody_elses_bucket_are_told_and_not_changed(made: Cloud) -> None:
    bucket = made.state["buckets"]["some-bucket"]
    bucket["flags"] = {"soft-delete-duration": "90d", "uniform-bucket-level-access": ""}
    for rules in (THEIR_RULES, None):
        bucket["lifecycle"] = rules
        done = made.run("create_storage")
        assert done.returncode == 0, done.stderr
        for told in (
            "bucket some-bucket exists: left alone",
            "warning: it may be made public",
            "warning: it keeps deleted objects for 90 days; VOXSRC_SOFT_DELETE_DAYS says 7: left alone",
            "warning: its lifecycle rules are others than those of lifecycle.json",
        ):
            assert told in done.stderr, told
        assert [call for call in made.changing_calls() if "storage" in call] == []
    assert bucket["lifecycle"] is None
    # what is told has all that is asked for
    for command in commands_told(done.stderr):
        assert made.cli.call(command) == (0, "", "")
    done = made.run("create_storage")
    assert "warning" not in done.stderr


@pytest.mark.parametrize(
    ("description", "policies"),
    [("Everybody's images", []), (None, [THEIR_POLICY]), ("Images of the voxsrc pipelines", [THEIR_POLICY])],
)
def test_images_of_somebody_elses_repository_are_not_deleted(
    made: Cloud, description: str | None, policies: list[dict[str, object]]
) -> None:
    """The policy deletes what is older than 180 days, whoever has pushed it."""
    repository = made.state["repositories"]["images"]
    repository.update(flags={"description": description}, cleanup=policies)
    done = made.run("create_storage")
    assert done.returncode == 0, done.stderr
    assert f"warning: its cleanup policies are {'keep-all' if policies else 'none'}; those of" in done.stderr
    assert made.changing_calls() == []
    (command,) = commands_told(done.stderr)
    assert made.cli.call(command) == (0, "", "")
    made.cli.calls.clear()
    assert "warning" not in made.run("create_storage").stderr
