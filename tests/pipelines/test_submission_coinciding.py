"""Outputs of a run that lie at one place, or where it reads, are refused."""

import pytest

from run_arguments import arguments_in, missing
from voxsrc.pipelines.package import Package

pytestmark = pytest.mark.usefixtures("hurry")


def test_outputs_have_places_of_their_own(train: Package, bucket: str) -> None:
    arguments = arguments_in(bucket)
    assert missing(train, arguments) == {}
    (found,) = missing(train, arguments | {"evaluation": arguments["training"] + "/"}).items()
    assert found[0] == "evaluation, training"
    assert found[1].startswith(f"{arguments['training']} is given for all of them, and written to; give")
    same = {"train_features": f"{bucket}/f", "test_features": f"{bucket}/f"}
    assert missing(train, arguments | same).keys() == {"test_features, train_features"}
    # a place below another is one of its own
    assert missing(train, arguments | {"evaluation": f"{arguments['training']}/evaluation"}) == {}


def test_outputs_do_not_replace_inputs(train: Package, bucket: str) -> None:
    arguments = arguments_in(bucket)
    onto = {"training": arguments["trials"], "test_features": arguments["test_audio"]}
    assert missing(train, arguments | onto).keys() == {"training, trials", "test_audio, test_features"}
    several = {"test_audio": f"{arguments['train_audio']};{arguments['test_audio']}"}
    onto = {"evaluation": arguments["test_audio"]}
    assert missing(train, arguments | several | onto).keys() == {"evaluation, test_audio"}


def test_inputs_may_be_given_twice(train: Package, bucket: str) -> None:
    arguments = arguments_in(bucket)
    same = {f"test_{what}": arguments[f"train_{what}"] for what in ("audio", "list")}
    assert missing(train, arguments | same) == {}
