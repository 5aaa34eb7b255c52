"""Exact resume: however a training is interrupted, it ends as the one that nothing has interrupted."""

import json
import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from commands import identities
from trainer.checkpoint import CheckpointStore
from training_runs import (
    AAM,
    ANGLEPROTO,
    Result,
    Trainings,
    recipe_file,
    training_arguments,
    write_speakers,
)
from voxsrc import storage
from voxsrc.processes import boot_id
from voxsrc.run_timings import TIMINGS_NAME, read_timings

# CI raises it.
NUM_KILLS = int(os.environ.get("VOXSRC_KILLS", "10"))

# In the order in which one life after the other reaches them.
PLACES = [
    ("trainer.training:Training._loss", 1),  # in the first step
    ("trainer.checkpoint.saver:AsyncSaver.submit", 2),
    ("trainer.checkpoint.state_file:Snapshot.content", 3),  # in a save, before the file
    ("trainer.checkpoint.store:CheckpointStore._publish", 3),  # between the file and the pointer
    ("trainer.checkpoint.store:CheckpointStore._delete_superseded", 3),
    ("trainer.history:History.write", 1),
    ("trainer.timing:Timing.write", 2),
    ("trainer.checkpoint.store:CheckpointStore._read_state", 1),  # in a load
    ("trainer.state:TrainingState.load", 1),
    ("trainer.training:Training._loss", 3),  # between forward and backward
    ("trainer.validation:Validation.equal_error_rate", 1),
    ("torch.nn.utils:clip_grad_norm_", 1),  # between backward and update
    ("trainer.validation:Validation.equal_error_rate", 2),
    ("trainer.validation:Validation.equal_error_rate", 2),
    ("trainer.run:draw_curves", 1),
    ("trainer.finishing:write_outputs", 1),
    ("trainer.finishing:save_model", 1),
    ("voxsrc.models.stored:write_yaml", 1),  # between weights and description
    ("trainer.finishing:report", 1),
]


@dataclass(frozen=True)
class Case:
    """A recipe, its features, and what a run without interruption makes of them."""

    recipe: str
    features: str
    seconds: float
    result: Result

    def arguments(self, output: str | Path, *more: str) -> list[str]:
        return training_arguments(self.recipe, self.features, output, *more)


@pytest.fixture(scope="module")
def cases(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("cases")
    features = write_speakers(folder / "features")
    noise = write_speakers(folder / "noise", num_speakers=1, first_speaker=90, spread_nat=0.0)
    augment = {**AAM["augment"], "noise": {"probability": 0.4, "features": noise}}
    recipes = {
        "angleproto": recipe_file(folder / "angleproto.yaml", ANGLEPROTO),
        "aam": recipe_file(folder / "aam.yaml", AAM, augment=augment),
        "stops early": recipe_file(
            folder / "stops_early.yaml", AAM, validation={**AAM["validation"], "patience": 1}
        ),
    }
    made = {}
    for name, recipe in recipes.items():
        output = folder / f"{name} undisturbed"
        ended = trainings.run(training_arguments(recipe, features, output))
        assert ended.succeeded, ended.text
        made[name] = Case(recipe, features, ended.seconds, Result.of(output))
    return made


def test_the_cases_are_what_they_should_be(cases: dict[str, Case]) -> None:
    plain, rich, early = cases["angleproto"].result, cases["aam"].result, cases["stops early"].result
    assert plain.history.count(b'"loss"') == 5
    assert plain.newest_checkpoint.startswith("step-000000024-")
    eers = [json.loads(row).get("validation_eer") for row in rich.history.splitlines()]
    judged = [eer for eer in eers if eer is not None]
    assert len(judged) == 6
    assert judged != sorted(judged, reverse=True)  # there is a best one to be remembered
    assert b'"margin": 0.0' in rich.history
    assert b'"margin": 0.5' in rich.history
    assert rich.best_checkpoint
    assert b"stopped_early: true" in early.description
    assert b"stopped_early: false" in rich.description


@pytest.mark.parametrize(
    ("name", "where"),
    [("angleproto", "folder"), ("aam", "folder"), ("aam", "bucket"), ("stops early", "folder")],
)
def test_killed_at_random_instants(
    trainings: Trainings,
    cases: dict[str, Case],
    name: str,
    where: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    root = str(tmp_path) if where == "folder" else request.getfixturevalue("bucket")
    case, chance = cases[name], random.Random(f"{name} {where}")
    kills = completed = 0
    while kills < NUM_KILLS or not completed:
        arguments = case.arguments(storage.join(root, f"run{completed}"))
        ended = (
            trainings.run_killed(arguments, chance, 0.6 * case.seconds)
            if kills < NUM_KILLS
            else trainings.run(arguments)
        )
        if ended.killed:
            kills += 1
        else:
            assert ended.succeeded, ended.text
            assert Result.of(storage.join(root, f"run{completed}")) == case.result
            completed += 1


def test_killed_at_each_of_the_places_that_matter(
    trainings: Trainings, cases: dict[str, Case], tmp_path: Path
) -> None:
    case, output = cases["aam"], tmp_path / "run"
    for place, call in PLACES:
        ended = trainings.run(
            case.arguments(output), signal_at_call=(place, call, signal.SIGKILL), await_saves=True
        )
        assert ended.killed, f"{place} was not reached: {ended.text}"
    assert trainings.run(case.arguments(output)).succeeded
    assert Result.of(output) == case.result


def test_a_finished_run_does_nothing(trainings: Trainings, cases: dict[str, Case], tmp_path: Path) -> None:
    case, output = cases["angleproto"], tmp_path / "run"
    assert trainings.run(case.arguments(output)).succeeded
    before = identities(output)
    ended = trainings.run(case.arguments(output))
    assert ended.succeeded
    assert "finished already" in ended.text
    assert identities(output) == before


def test_killed_between_early_stop_and_export(
    trainings: Trainings, cases: dict[str, Case], tmp_path: Path
) -> None:
    case, output = cases["stops early"], tmp_path / "run"
    place = ("trainer.finishing:write_outputs", 1, signal.SIGKILL)
    for _ in range(2):
        assert trainings.run(case.arguments(output), signal_at_call=place).killed
        assert not (output / "model").exists()
    ended = trainings.run(case.arguments(output))
    assert ended.succeeded, ended.text
    assert Result.of(output) == case.result


@pytest.mark.parametrize("damage", ["flipped", "cut", "removed"])
def test_a_damaged_newest_checkpoint_falls_back_and_says_so(
    trainings: Trainings, cases: dict[str, Case], tmp_path: Path, damage: str
) -> None:
    case, output = cases["aam"], tmp_path / "run"
    place = ("trainer.training:Training._loss", 14, signal.SIGKILL)
    assert trainings.run(case.arguments(output), signal_at_call=place, await_saves=True).killed
    entries = {entry.step: entry.name for entry in CheckpointStore(str(output)).entries}
    assert max(entries) == 13
    newest = output / "checkpoints" / entries[13]
    assert 12 in entries
    content = newest.read_bytes()
    if damage == "flipped":
        newest.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    elif damage == "cut":
        newest.write_bytes(content[:-1])
    else:
        newest.unlink()
    ended = trainings.run(case.arguments(output))
    assert ended.succeeded, ended.text
    assert f"checkpoint {newest.name} skipped, falling back to {entries[12]}: " in ended.text
    assert Result.of(output) == case.result


def test_sigterm_saves_and_says_so(trainings: Trainings, cases: dict[str, Case], tmp_path: Path) -> None:
    case, output = cases["aam"], tmp_path / "run"
    seldom = ["--set", "checkpoint_interval_s=1000"]
    for step, call in ((7, 7), (20, 13), (24, 4)):
        place = ("trainer.training:Training._loss", call, signal.SIGTERM)
        ended = trainings.run(case.arguments(output, *seldom), signal_at_call=place)
        assert ended.codes == [1]
        assert f"error: stopped by SIGTERM after step {step}, which is saved; the same command" in ended.text
        assert "Traceback" not in ended.text
    ended = trainings.run(case.arguments(output))
    assert ended.succeeded, ended.text
    assert "continuing after step 24 of 24" in ended.text
    result = Result.of(output)
    assert result.weights == case.result.weights
    assert result.history == case.result.history


def test_the_history_comes_from_the_checkpoint(
    trainings: Trainings, cases: dict[str, Case], tmp_path: Path
) -> None:
    case, output = cases["angleproto"], tmp_path / "run"
    for content in (None, b'{"step": 5, "loss": 0.0}\n', b"of an earlier writer that came back\n" * 9):
        place = ("trainer.training:Training._loss", 6, signal.SIGKILL)
        assert trainings.run(case.arguments(output), signal_at_call=place, await_saves=True).killed
        history = output / "history.jsonl"
        history.unlink(missing_ok=True) if content is None else history.write_bytes(content)
    assert trainings.run(case.arguments(output)).succeeded
    assert Result.of(output) == case.result


def test_each_process_records_what_it_took(
    trainings: Trainings, cases: dict[str, Case], tmp_path: Path
) -> None:
    case, output = cases["aam"], tmp_path / "run"
    place = ("trainer.training:Training._loss", 10, signal.SIGKILL)
    assert trainings.run(case.arguments(output), signal_at_call=place, await_saves=True).killed
    assert trainings.run(case.arguments(output), await_saves=True).succeeded
    timings = read_timings(str(output))
    first, second = timings.attempts
    assert timings.num_steps == 18 + 6
    assert timings.num_frames == 6 * (18 * 20 + 6 * 30)
    assert (first.device, first.num_processes, first.finished, second.finished) == ("cpu", 1, False, True)
    assert (first.first_step, second.first_step) == (0, 9)
    # Written after step 9, with the saves until then; the first step is counted apart.
    assert (first.num_steps, first.num_saves) == (8, 8)
    assert (second.num_steps, second.num_saves) == (24 - 9 - 1, 24 - 9)
    for each in timings.attempts:
        assert each.boot_id == boot_id()
        assert each.save_bytes > 1000
        parts = each.setup_s + each.restore_s + each.first_step_s + each.training_s + each.validation_s
        assert 0 < parts <= each.held_s < case.seconds * 100
        assert min(each.setup_s, each.first_step_s, each.training_s, each.validation_s, each.save_s) > 0
    assert second.restore_s > 0


def test_each_process_leaves_its_curves_in_the_bucket(
    trainings: Trainings, cases: dict[str, Case], bucket: str
) -> None:
    case, output = cases["angleproto"], f"{bucket}/run"
    place = ("trainer.training:Training._loss", 8, signal.SIGKILL)
    for count in (1, 2):
        assert trainings.run(case.arguments(output), signal_at_call=place, await_saves=True).killed
        assert len(list(storage.list_files(f"{output}/tensorboard"))) == count


def test_a_process_that_sigterm_ends_or_that_never_saves_is_on_record(
    trainings: Trainings, cases: dict[str, Case], tmp_path: Path
) -> None:
    case, output = cases["angleproto"], tmp_path / "run"
    seldom = ["--set", "checkpoint_interval_s=1000"]
    place = ("trainer.training:Training._loss", 4)
    for number in (signal.SIGKILL, signal.SIGTERM):
        ended = trainings.run(case.arguments(output, *seldom), signal_at_call=(*place, number))
        assert not ended.succeeded
    assert trainings.run(case.arguments(output)).succeeded
    killed, terminated, last = read_timings(str(output)).attempts
    assert (killed.num_saves, killed.num_steps) == (0, 0)
    assert (terminated.num_saves, terminated.num_steps) == (1, 3)
    assert last.first_step == 4


def test_steps_that_patience_left_out_are_no_work(
    cases: dict[str, Case], trainings: Trainings, tmp_path: Path
) -> None:
    case, output = cases["stops early"], tmp_path / "run"
    assert trainings.run(case.arguments(output)).succeeded
    timings = read_timings(str(output))
    [attempt] = timings.attempts
    assert timings.num_steps == 1 + attempt.num_steps < 24
    assert timings.num_frames > attempt.num_frames
    assert timings.num_frames % (6 * 10) == 0


def test_damaged_times_are_replaced(trainings: Trainings, cases: dict[str, Case], tmp_path: Path) -> None:
    case, output = cases["angleproto"], tmp_path / "run"
    place = ("trainer.training:Training._loss", 6, signal.SIGKILL)
    assert trainings.run(case.arguments(output), signal_at_call=place, await_saves=True).killed
    (output / TIMINGS_NAME).write_bytes(b"half")
    ended = trainings.run(case.arguments(output))
    assert ended.succeeded
    assert ended.text.count("the times of earlier processes are lost") == 1
    assert [each.finished for each in read_timings(str(output)).attempts] == [True]
    assert Result.of(output) == case.result


def test_how_the_data_are_read_changes_nothing(
    trainings: Trainings, cases: dict[str, Case], tmp_path: Path
) -> None:
    case, output = cases["aam"], tmp_path / "run"
    other = [
        "data.placement=mmap",
        f"data.cache_dir={tmp_path / 'cache'}",
        "data.prefetch_batches=3",
        "keep_checkpoints=1",
        "checkpoint_interval_s=0.05",
    ]
    arguments = case.arguments(output, *(text for setting in other for text in ("--set", setting)))
    place = ("trainer.training:Training._loss", 9, signal.SIGKILL)
    assert trainings.run(arguments, signal_at_call=place).killed
    ended = trainings.run(arguments)
    assert ended.succeeded, ended.text
    result = Result.of(output)
    assert (result.weights, result.history) == (case.result.weights, case.result.history)
