"""What can be wrong with trials, features, models and flags, and what is said about it."""

from pathlib import Path

import pytest

from evaluations import Evaluations, Trained, job
from evaluator import cli
from evaluator.options import EvaluationOptions
from training_runs import write_speakers
from voxsrc.corpus import read_trials
from voxsrc.errors import ConfigError
from voxsrc.feature_set import FeatureSet
from voxsrc.features import FbankSpec, preset


def names_of(trained: Trained) -> list[str]:
    return FeatureSet.open(trained.test).index.utterance_ids


def test_unknown_utterances_are_all_counted_and_all_listed(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    known = names_of(trained)
    unknown = [f"nobody/s{number}/0.wav" for number in range(25)]
    trials = tmp_path / "trials.txt"
    trials.write_text(
        f"1 {known[0]} {known[1]}\n0 {known[0]} {known[9]}\n"
        + "".join(
            f"{number % 2} {known[0]} {name}\n0 {known[1]} {name}\n" for number, name in enumerate(unknown)
        )
    )
    outcome = evaluations(*job(trained, "--trials", trials), "--output", tmp_path / "output")
    assert outcome.code == 1
    assert outcome.error.startswith(f"{trials}, {trained.test}: 50 of 52 trials name 25 utterances")
    listed = tmp_path / "output" / "unusable_utterances.txt"
    assert f"All 25 are listed in {listed}" in outcome.errors
    assert unknown[9] in outcome.errors
    assert unknown[10] not in outcome.errors
    assert listed.read_text().splitlines() == [f"{name}\tmissing: not in the features" for name in unknown]
    assert evaluations.num_batches == 0


def test_utterances_too_short_for_the_model_are_all_listed(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    short = write_speakers(tmp_path / "short", num_speakers=4, num_utterances=3, frames=(2, 3))
    names = FeatureSet.open(short).index.utterance_ids
    trials = tmp_path / "trials.txt"
    trials.write_text(f"1 {names[0]} {names[1]}\n0 {names[0]} {names[-1]}\n")
    outcome = evaluations(
        *job(trained, "--features", short, "--trials", trials), "--output", tmp_path / "output"
    )
    assert outcome.code == 1
    assert "3 of 3 utterances" in outcome.error
    lines = (tmp_path / "output" / "unusable_utterances.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == [names[0], names[1], names[-1]]
    assert all("too_short: " in line for line in lines)


def test_duplicated_trials_count_as_often_as_they_are_listed(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    first = read_trials(trained.trials)
    text = Path(trained.trials).read_text()
    trials = tmp_path / "trials.txt"
    swapped = f"0 {first.tests[-1]} {first.enrollments[-1]}\n"
    assert text.splitlines()[-1].startswith("1 ")
    trials.write_text(text + text.splitlines()[0] + "\n" + swapped)
    metrics = evaluations.metrics(tmp_path / "output", *job(trained, "--trials", trials))
    assert metrics["num_trials"] == len(first) + 2
    assert metrics["warnings"] == [
        f"2 trials are listed more than once, the first is {first.enrollments[0]} {first.tests[0]}; each "
        "counts as often as it is listed",
        f"1 trials are listed with both labels, the first is {first.enrollments[-1]} {first.tests[-1]}",
        f"1 labels contradict the speakers, the first is that of {first.tests[-1]} {first.enrollments[-1]}: "
        "of id055 and id055",
    ]
    assert evaluations.reports[0].warnings == metrics["warnings"]


@pytest.mark.parametrize("label", [0, 1])
def test_one_kind_of_trials_alone_is_refused_at_once(
    label: int, trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    lines = [line for line in Path(trained.trials).read_text().splitlines() if line[0] == str(label)]
    trials = tmp_path / "trials.txt"
    trials.write_text("\n".join(lines))
    outcome = evaluations(*job(trained, "--trials", trials), "--output", tmp_path / "output")
    assert outcome.code == 1
    assert outcome.error.startswith(f"{trials}: all {len(lines)} trials have the label {label}; expected")
    assert evaluations.num_batches == 0


def test_features_of_another_spec(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    others = write_speakers(tmp_path / "others", spec=FbankSpec(preemphasis=0.9))
    for flag in ("--features", "--train-features"):
        outcome = evaluations(*job(trained, flag, others), "--output", tmp_path / "output")
        assert outcome.code == 1
        assert outcome.error.startswith(f"{others} has other features than asked for: preemphasis")
    other_preset = write_speakers(tmp_path / "kaldi80", spec=preset("kaldi80", window="hamming"))
    outcome = evaluations(*job(trained, "--features", other_preset), "--output", tmp_path / "output")
    assert "has other features than asked for: kaldi80 with window=hamming, expected lfb40" in outcome.error
    assert evaluations.num_batches == 0


@pytest.mark.parametrize(
    ("flag", "value"), [("--model", "nowhere"), ("--features", "nowhere"), ("--trials", "nowhere.txt")]
)
def test_what_is_not_there_is_named(
    flag: str, value: str, trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    outcome = evaluations(*job(trained, flag, tmp_path / value), "--output", tmp_path / "output")
    assert outcome.code == 1
    assert str(tmp_path / value) in outcome.error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": None}, "neither --features nor --audio is given"),
        ({"scoring": "as-norm"}, "--scoring as-norm needs --train-features"),
        ({"scoring": "plda"}, "--scoring plda needs --train-features"),
        ({"quality": True}, "--quality needs --train-features"),
        ({"p_target": 1.0}, "--p-target is 1.0"),
        ({"p_target": float("nan")}, "--p-target is nan"),
        ({"top_cohort": 1}, "--top-cohort is 1; expected at least 2"),
        ({"cohort_utterances": 0}, "--cohort-utterances is 0; expected at least 1"),
        ({"num_resamples": -1}, "--num-resamples is -1; expected at least 0"),
        ({"compare": ("baseline=",)}, "--compare 'baseline=': expected a score file, or one with a name"),
        ({"compare": ("=scores.txt",)}, "--compare '=scores.txt': expected a score file, or one with a name"),
        ({"compare": ("a/cosine.txt",)}, "--compare: the names cosine, cosine are not distinct"),
        ({"compare": ("a=x", "a=y")}, "--compare: the names cosine, a, a are not distinct"),
        ({"compare": ("cosine=x",)}, "--compare: the names cosine, cosine are not distinct"),
    ],
)
def test_options_that_cannot_be_used(changes: dict[str, object], message: str) -> None:
    fields: dict[str, object] = {"model": "m", "features": "f", "trials": "t", "output": "o"}
    with pytest.raises(ConfigError) as raised:
        EvaluationOptions(**(fields | changes))  # type: ignore[arg-type]
    assert message in str(raised.value)


def test_an_option_with_an_empty_value_counts_as_not_given(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    given = evaluations.metrics(tmp_path / "given", *job(trained))
    empty = ["--audio", "--train-features", "--metadata", "--title", "--scoring", "--p-target", "--device"]
    more = ["--top-cohort", "--cache", "--compare", "--executor-input", "--report-path"]
    arguments = [argument for flag in empty + more for argument in (flag, "")]
    left_empty = evaluations.metrics(tmp_path / "empty", *job(trained, *arguments, "--cohort-utterances="))
    assert left_empty == given
    assert evaluations.reports[0].title == evaluations.reports[1].title == "Speaker verification"


def test_a_required_option_may_not_be_empty(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["--model", "", "--trials", "t", "--output", "o", "--features", "f"])
    assert raised.value.code == 2
    assert "the following arguments are required: --model" in capsys.readouterr().err
