"""An initial model that knows speakers whom the training holds out."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import Command
from steered_trainings import Arguments, interrupted
from trainer.initial_model import known_among, merged_records, speaker_record
from trainer.state import TrainingState
from training_runs import Result, write_speakers
from voxsrc.config import read_yaml, write_yaml
from voxsrc.corpus import split_speakers
from voxsrc.models.stored import ModelError, read_description

Warned = Callable[..., list[str]]


def validation(fraction: float) -> dict[str, Any]:
    return {"fraction": fraction, "crop_frames": 24}


@pytest.fixture
def model(trainer: Command, arguments: Arguments, tmp_path: Path) -> Path:
    """Trained on 6 of 8 speakers."""
    outcome = trainer(*arguments(output=tmp_path / "first", num_steps=2, validation=validation(0.3)))
    assert outcome.code == 0, outcome.error
    return tmp_path / "first" / "model"


@pytest.fixture
def warned(trainer: Command, arguments: Arguments, caplog: pytest.LogCaptureFixture) -> Warned:
    """What a dry run with an initial model warns of."""

    def of(model: Path, fraction: float, **others: Any) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "trainer"):
            changes = {"initial_model": str(model), "validation": validation(fraction), **others}
            outcome = trainer(*arguments("--dry-run", num_steps=2, **changes))
        assert outcome.code == 0, outcome.error
        return caplog.messages

    return of


def without_record(model: Path) -> None:
    """Makes it the model of an earlier version."""
    path = model / "model.yaml"
    fields = read_yaml(path.read_text(), str(path))
    del fields["provenance"]["training_speakers"]
    path.write_text(write_yaml(fields))


def test_held_out_speakers_that_it_was_trained_on_are_counted(model: Path, warned: Warned) -> None:
    (message,) = warned(model, 0.5)
    assert message.startswith(
        f"initial_model {model} was trained on 2 of the 4 speakers held out for validation"
    )


def test_those_that_it_held_out_itself_are_not(model: Path, warned: Warned) -> None:
    assert warned(model, 0.3) == []
    assert warned(model, 0.25) == []
    assert warned(model, 0.0) == []


def test_strangers_are_not(model: Path, warned: Warned, tmp_path: Path) -> None:
    strangers = write_speakers(tmp_path / "strangers", first_speaker=100)
    assert warned(model, 0.5, using=strangers) == []
    others = write_speakers(tmp_path / "others", first_speaker=5)
    trained_on, _ = split_speakers(map("id{:03d}".format, range(8)), copies={}, validation_fraction=0.3)
    _, held_out = split_speakers(map("id{:03d}".format, range(5, 13)), copies={}, validation_fraction=0.5)
    (message,) = warned(model, 0.5, using=others)
    assert f"was trained on {len({*trained_on} & {*held_out})} of the 4 speakers held out" in message


def test_a_model_that_does_not_say(model: Path, warned: Warned, tmp_path: Path) -> None:
    without_record(model)
    assert warned(model, 0.3) == []
    assert warned(model, 0.0) == []
    strangers = write_speakers(tmp_path / "strangers", first_speaker=100)
    for messages in (warned(model, 0.5), warned(model, 0.3, using=strangers)):
        (message,) = messages
        assert message.startswith(f"initial_model {model} does not say on whom it was trained")


def test_a_record_that_is_none(model: Path, trainer: Command, arguments: Arguments) -> None:
    path = model / "model.yaml"
    fields = read_yaml(path.read_text(), str(path))
    fields["provenance"]["training_speakers"] = ["id000"]
    path.write_text(write_yaml(fields))
    outcome = trainer(*arguments(initial_model=str(model), num_steps=2, validation=validation(0.3)))
    assert outcome.code == 1
    assert f"{model}: provenance.training_speakers is" in outcome.error


def test_speakers_of_the_model_before_it_are_known_too(
    model: Path, trainer: Command, arguments: Arguments, warned: Warned, tmp_path: Path
) -> None:
    strangers = write_speakers(tmp_path / "strangers", first_speaker=100)
    second = arguments(
        output=tmp_path / "second", using=strangers, initial_model=str(model), num_steps=2, batch_size=8
    )
    assert trainer(*second).code == 0
    (message,) = warned(tmp_path / "second" / "model", 0.5)
    assert "was trained on 2 of the 4 speakers" in message


def test_those_of_a_model_that_does_not_say_are_not_claimed_to_be_known(
    model: Path, trainer: Command, arguments: Arguments, warned: Warned, tmp_path: Path
) -> None:
    without_record(model)
    strangers = write_speakers(tmp_path / "strangers", first_speaker=100)
    changes = {"using": strangers, "initial_model": str(model), "num_steps": 2}
    for fraction in (0.0, 0.3):
        second = tmp_path / f"second-{fraction}"
        assert trainer(*arguments(output=second, validation=validation(fraction), **changes)).code == 0
        assert "training_speakers" not in read_description(str(second / "model")).provenance
        (message,) = warned(second / "model", 0.5)
        assert message.startswith(f"initial_model {second / 'model'} does not say on whom it was trained")


@pytest.mark.parametrize(("fraction", "is_known"), [(0.3, True), (0.0, True), (0.5, False)])
def test_of_the_same_set_they_are_known_where_no_more_are_held_out(
    model: Path, trainer: Command, arguments: Arguments, tmp_path: Path, fraction: float, is_known: bool
) -> None:
    without_record(model)
    command = arguments(initial_model=str(model), num_steps=1, validation=validation(fraction), batch_size=4)
    assert trainer(*command).code == 0
    provenance = read_description(str(tmp_path / "run/model")).provenance
    assert ("training_speakers" in provenance) == is_known


def test_they_are_known_when_the_model_is_gone(
    model: Path, trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    strangers = write_speakers(tmp_path / "strangers", first_speaker=100)
    changes = {"using": strangers, "initial_model": str(model), "num_steps": 2}
    assert trainer(*arguments(output=tmp_path / "plain", **changes)).code == 0
    interrupted(trainer, arguments(**changes), monkeypatch)
    model.rename(tmp_path / "moved")
    assert trainer(*arguments("--export", "newest", **changes)).code == 0
    assert trainer(*arguments(**changes)).code == 0
    assert Result.of(tmp_path / "run").description == Result.of(tmp_path / "plain").description
    exported = read_description(str(tmp_path / "run" / "exported" / "step-000000002")).provenance
    assert (
        exported["training_speakers"]
        == read_description(str(tmp_path / "run/model")).provenance["training_speakers"]
    )


def test_a_checkpoint_of_an_earlier_version_goes_on(
    model: Path, trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = TrainingState.to_state

    def to_state(*given: Any) -> dict[str, Any]:
        state = original(*given)
        identity = {name: value for name, value in state["identity"].items() if name != "training_speakers"}
        return {**state, "identity": identity}

    changes = {"initial_model": str(model), "num_steps": 2}
    with monkeypatch.context() as earlier:
        earlier.setattr(TrainingState, "to_state", to_state)
        for name in ("run", "gone"):
            interrupted(trainer, arguments(output=tmp_path / name, **changes), monkeypatch)
    assert trainer(*arguments(**changes)).code == 0
    known = read_description(str(tmp_path / "run/model")).provenance["training_speakers"]
    assert len(known_among([f"id{number:03d}" for number in range(20)], known, "")) == 8
    model.rename(tmp_path / "moved")
    assert trainer(*arguments(output=tmp_path / "gone", **changes)).code == 0
    assert "training_speakers" not in read_description(str(tmp_path / "gone/model")).provenance


@pytest.mark.parametrize("says", [True, False])
def test_the_description_does_not_depend_on_an_interruption(
    model: Path,
    trainer: Command,
    arguments: Arguments,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    says: bool,
) -> None:
    if not says:
        without_record(model)
    strangers = write_speakers(tmp_path / "strangers", first_speaker=100)
    changes = {"using": strangers, "initial_model": str(model), "num_steps": 2}
    assert trainer(*arguments(output=tmp_path / "plain", **changes)).code == 0
    for name in ("there", "gone"):
        interrupted(trainer, arguments(output=tmp_path / name, **changes), monkeypatch)
    assert trainer(*arguments(output=tmp_path / "there", **changes)).code == 0
    model.rename(tmp_path / "moved")
    assert trainer(*arguments(output=tmp_path / "gone", **changes)).code == 0
    assert Result.of(tmp_path / "there") == Result.of(tmp_path / "plain")
    assert Result.of(tmp_path / "gone") == Result.of(tmp_path / "plain")


def test_a_record_is_compact_and_does_not_depend_on_order() -> None:
    names = [f"id{number:05d}" for number in range(5994)]
    record = speaker_record(names)
    assert record == speaker_record([*reversed(names), names[5]])
    assert len(record) < 33_000
    assert known_among(["id05993", "id05994", "id00000"], record, "") == ["id05993", "id00000"]
    assert merged_records(speaker_record(names[:9]), speaker_record(names[5:]), "") == record
    assert known_among(names, speaker_record([]), "") == []


@pytest.mark.parametrize("record", ["", "id000", "sha256/4:AAA", "sha256/4:AAAA", "sha256/4:ö", 5, ["id000"]])
def test_a_damaged_record_is_refused(record: object) -> None:
    with pytest.raises(ModelError, match=r"there: provenance\.training_speakers is "):
        known_among(["a"], record, "there")
