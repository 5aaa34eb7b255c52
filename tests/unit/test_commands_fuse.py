"""`voxsrc fuse`, as it is used."""

from pathlib import Path

import numpy as np
import pytest

from commands import Command, Outcome
from voxsrc import cli
from voxsrc.corpus import TrialList, read_trials, write_trials
from voxsrc.metrics import cllr, equal_error_rate, error_rates
from voxsrc.scores import matched, read_scores, write_scores

NAMES = ("held_out_trials.txt", "held_out_scores.txt", "scores.txt")


@pytest.fixture
def voxsrc(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> Outcome:
        code = cli.main(arguments)
        return Outcome(code, *capsys.readouterr())

    return run


def trials_of(prefix: str, count: int) -> TrialList:
    return TrialList(
        np.arange(count, dtype=np.int8) % 2,
        [f"{prefix}/a/{n} 1.wav" for n in range(count)],
        [f"{prefix}/b/{n}.wav" for n in range(count)],
    )


@pytest.fixture
def test_trials(tmp_path: Path) -> TrialList:
    trials = trials_of("test", 600)
    write_trials(str(tmp_path / "trials.txt"), trials)
    return trials


def make_system(folder: Path, test_trials: TrialList, seed: int) -> None:
    """Scores that know as much as another seed's, and other things."""
    generator = np.random.default_rng(seed)
    held_out = trials_of("train", 800)
    folder.mkdir()
    write_trials(str(folder / NAMES[0]), held_out)
    for trials, name in ((held_out, NAMES[1]), (test_trials, NAMES[2])):
        assert trials.labels is not None
        write_scores(str(folder / name), trials, generator.normal(1.5 * trials.labels, 1))


def test_two_systems_are_better_than_either_and_calibrated(
    voxsrc: Command, tmp_path: Path, test_trials: TrialList
) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        make_system(tmp_path / name, test_trials, seed)
    outcome = voxsrc(
        "fuse", "--system", f"one={tmp_path / 'one'}", "--system", f"two={tmp_path / 'two'}",
        "--trials", str(tmp_path / "trials.txt"), "--output", str(tmp_path / "fused.txt"),
    )  # fmt: skip
    assert outcome.code == 0, outcome.errors
    assert "fitted on 800 trials of held-out speakers; weights: one 1." in outcome.output
    assert "warning" not in outcome.output

    def scores(path: Path) -> np.ndarray:
        return matched(read_scores(str(path)), test_trials).scores

    labels = test_trials.labels
    assert labels is not None
    fused = scores(tmp_path / "fused.txt")
    for name in ("one", "two"):
        alone = error_rates(scores(tmp_path / name / "scores.txt"), labels)
        assert equal_error_rate(error_rates(fused, labels)) < equal_error_rate(alone)
    assert cllr(fused, labels) < 0.6


def test_a_system_that_was_not_evaluated_so_or_a_single_one_is_refused(
    voxsrc: Command, tmp_path: Path, test_trials: TrialList
) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        make_system(tmp_path / name, test_trials, seed)
    flags = ["--trials", str(tmp_path / "trials.txt"), "--output", str(tmp_path / "fused.txt")]
    one = ["--system", f"one={tmp_path / 'one'}"]
    assert "found 1, expected two or more" in voxsrc("fuse", *one, *flags).error
    assert "expected NAME=DIR" in voxsrc("fuse", *one, "--system", "two", *flags).error
    for name in (NAMES[1], NAMES[0]):
        (tmp_path / "two" / name).unlink()
        untrained = voxsrc("fuse", *one, "--system", f"two={tmp_path / 'two'}", *flags)
        assert untrained.code == 1
        assert untrained.error.startswith(f"system 'two': {tmp_path / 'two'} has no held_out_trials.txt with")
        assert "evaluate it again with --train-features" in untrained.error
    mistyped = voxsrc("fuse", *one, "--system", f"two={tmp_path / 'tow'}", *flags)
    assert f"{tmp_path / 'tow' / NAMES[0]}" in mistyped.error and "evaluate" not in mistyped.error
    write_trials(str(tmp_path / "two" / NAMES[0]), trials_of("other", 800))
    write_scores(str(tmp_path / "two" / NAMES[1]), trials_of("other", 800), np.arange(800.0))
    assert "'one' and 'two'" in voxsrc("fuse", *one, "--system", f"two={tmp_path / 'two'}", *flags).error
    assert not (tmp_path / "fused.txt").exists()


def test_a_system_that_speaks_against_its_scores_is_warned_of_on_stderr(
    voxsrc: Command, tmp_path: Path, test_trials: TrialList
) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        make_system(tmp_path / name, test_trials, seed)
    for name in NAMES[1:]:
        reversed_ = read_scores(str(tmp_path / "two" / name))
        trials = test_trials if name == NAMES[2] else trials_of("train", 800)
        write_scores(str(tmp_path / "two" / name), trials, -matched(reversed_, trials).scores)
    outcome = voxsrc(
        "fuse", "--system", f"one={tmp_path / 'one'}", "--system", f"two={tmp_path / 'two'}",
        "--trials", str(tmp_path / "trials.txt"), "--output", str(tmp_path / "fused.txt"),
    )  # fmt: skip
    assert outcome.code == 0
    assert outcome.errors.startswith("warning: a system with a negative weight")
    assert "warning" not in outcome.output


def test_trials_survive_being_written(tmp_path: Path, test_trials: TrialList) -> None:
    read = read_trials(str(tmp_path / "trials.txt"))
    assert (read.enrollments, read.tests) == (test_trials.enrollments, test_trials.tests)
    assert read.labels is not None and test_trials.labels is not None
    assert read.labels.tolist() == test_trials.labels.tolist()
    blind = TrialList(None, read.enrollments, read.tests)
    write_trials(str(tmp_path / "blind.txt"), blind)
    assert read_trials(str(tmp_path / "blind.txt")).labels is None
