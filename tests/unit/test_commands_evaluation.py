"""`voxsrc metrics`, `submission` and `trials`, as they are used."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from commands import Command, Outcome
from voxsrc.command import run_command
from voxsrc.commands import metrics, submission, trials
from voxsrc.metrics import equal_error_rate, error_rates, min_dcf, resample


@pytest.fixture
def voxsrc(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> Outcome:
        parser = argparse.ArgumentParser()
        groups = parser.add_subparsers(dest="group", required=True)
        for module in (metrics, submission, trials):
            module.add_commands(groups)
        parsed = parser.parse_args(arguments)
        code = run_command(parsed.function, parsed)
        return Outcome(code, *capsys.readouterr())

    return run


class Corpus:
    """300 trials of 8 speakers, and scores that know a little of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        generator = np.random.default_rng(0)
        self.speakers = [(f"id{a}", f"id{b}") for a, b in generator.integers(0, 8, (300, 2))]
        self.pairs = [(f"{a}/s/{n:03d}.wav", f"{b}/t/{n:03d}.wav") for n, (a, b) in enumerate(self.speakers)]
        self.labels = np.array([int(a == b) for a, b in self.speakers])
        self.scores = generator.normal(2.0 * self.labels, 1)
        self.trials = self.file("trials.txt", self.labels.tolist())
        self.score_file = self.file("scores.txt", self.scores.tolist())

    def file(self, name: str, first_column: list[float] | list[int] | list[str]) -> str:
        rows = zip(first_column, self.pairs, strict=True)
        lines = [f"{first} {' '.join(pair)}".strip() for first, pair in rows]
        (self.folder / name).write_text("\n".join(lines) + "\n")
        return str(self.folder / name)

    def arguments(self, **changed: str) -> list[str]:
        options = {"scores": self.score_file, "trials": self.trials, **changed}
        return ["metrics", *(part for name, value in options.items() for part in (f"--{name}", value))]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def test_metrics_are_the_challenges_with_intervals(voxsrc: Command, corpus: Corpus) -> None:
    outcome = voxsrc(*corpus.arguments(resamples="60"), "--json")
    summary = json.loads(outcome.output)
    rates = error_rates(corpus.scores, corpus.labels)
    assert summary["eer"] == equal_error_rate(rates)
    assert summary["min_dcf"] == min_dcf(rates, 0.05)
    assert summary["min_dcf_p01"] == min_dcf(rates, 0.01)
    statistics = {"eer": equal_error_rate, "min_dcf": min_dcf}
    drawn = resample(statistics, corpus.scores, corpus.labels, corpus.speakers, num_resamples=60)
    for name in statistics:
        interval = drawn.interval(name)
        assert summary[f"{name}_interval"] == [interval.low, interval.high]
        assert interval.low < summary[name] < interval.high
    assert (summary["num_trials"], summary["num_targets"]) == (300, corpus.labels.sum())
    assert (summary["num_speakers"], summary["num_resamples"], summary["trial_list"]) == (8, 60, None)
    assert summary["warnings"] == []
    assert outcome.errors == ""
    accepted = corpus.scores >= summary["eer_threshold"]
    false_accepts = accepted[corpus.labels == 0].mean()
    assert false_accepts == pytest.approx(summary["eer"], abs=0.03)


def test_metrics_for_people(voxsrc: Command, corpus: Corpus) -> None:
    outcome = voxsrc(*corpus.arguments(resamples="20"))
    rates = error_rates(corpus.scores, corpus.labels)
    assert f"EER          {100 * equal_error_rate(rates):.3f} %  [" in outcome.output
    assert f"minDCF 0.05  {min_dcf(rates):.4f}  [" in outcome.output
    assert "95 % intervals over 20 draws of the speakers" in outcome.output
    without = voxsrc(*corpus.arguments(resamples="0"))
    assert "[" not in without.output
    assert without.errors == ""


def test_another_p_target(voxsrc: Command, corpus: Corpus) -> None:
    summary = json.loads(voxsrc(*corpus.arguments(**{"p-target": "0.2", "resamples": "0"}), "--json").output)
    assert summary["min_dcf"] == min_dcf(error_rates(corpus.scores, corpus.labels), 0.2)
    assert summary["min_dcf_interval"] is None


def test_two_systems_are_tested_on_the_same_draws(voxsrc: Command, corpus: Corpus) -> None:
    better = corpus.file("better.txt", (corpus.scores + 2.0 * corpus.labels).tolist())
    arguments = corpus.arguments(compare=better, resamples="99")
    comparison = json.loads(voxsrc(*arguments, "--json").output)["comparison"]
    test = comparison["differences"]["eer"]
    assert test["difference"] > 0
    assert test["interval"][0] > 0
    assert test["p_value"] == pytest.approx(2 / 100)
    assert "the first less better +" in voxsrc(*arguments).output
    named = json.loads(
        voxsrc(*corpus.arguments(compare=f"a new one={better}", resamples="9"), "--json").output
    )
    assert (named["comparison"]["name"], named["comparison"]["scores"]) == ("a new one", better)
    assert voxsrc(*arguments, "--compare", "new=").code == 1
    same = corpus.arguments(compare=corpus.score_file, resamples="9")
    test = json.loads(voxsrc(*same, "--json").output)["comparison"]["differences"]["min_dcf"]
    assert (test["difference"], test["p_value"]) == (0.0, 1.0)


def test_without_speakers_the_intervals_are_left_out_and_a_list_brings_them_back(
    voxsrc: Command, corpus: Corpus
) -> None:
    corpus.pairs = [(a.replace("/", "-"), b.replace("/", "-")) for a, b in corpus.pairs]
    options = {
        "scores": corpus.file("flat-scores.txt", corpus.scores.tolist()),
        "trials": corpus.file("flat.txt", corpus.labels.tolist()),
        "resamples": "20",
    }
    outcome = voxsrc(*corpus.arguments(**options), "--json")
    summary = json.loads(outcome.output)
    assert summary["eer_interval"] is summary["min_dcf_interval"] is summary["num_speakers"] is None
    assert "no intervals: the paths do not name the speakers" in outcome.errors
    assert "[" not in voxsrc(*corpus.arguments(**options)).output
    listed = sorted({f"{path.split('-')[0]} {path}\n" for pair in corpus.pairs for path in pair})
    (corpus.folder / "speakers.txt").write_text("".join(listed))
    options["speakers"] = str(corpus.folder / "speakers.txt")
    outcome = voxsrc(*corpus.arguments(**options), "--json")
    assert json.loads(outcome.output)["num_speakers"] == 8
    assert json.loads(outcome.output)["eer_interval"] is not None
    assert outcome.errors == ""
    (corpus.folder / "speakers.txt").write_text("".join(listed[2:]))
    outcome = voxsrc(*corpus.arguments(**options))
    assert outcome.code == 1
    assert "2 utterances of the trials have no speaker" in outcome.error


def test_labels_that_deny_the_speakers_are_not_trusted(voxsrc: Command, corpus: Corpus) -> None:
    labels = corpus.labels.tolist()
    place = labels.index(1)
    labels[place] = 0
    options = {"trials": corpus.file("wrong.txt", labels), "resamples": "20"}
    outcome = voxsrc(*corpus.arguments(**options), "--json")
    assert json.loads(outcome.output)["eer_interval"] is None
    assert f"no intervals: 1 labels contradict the speakers, the first of trial {place + 1}" in outcome.errors
    # Who gives a list means it: the intervals are computed, with the warning.
    listed = {f"{path.split('/')[0]} {path}\n" for pair in corpus.pairs for path in pair}
    (corpus.folder / "speakers.txt").write_text("".join(listed))
    options["speakers"] = str(corpus.folder / "speakers.txt")
    outcome = voxsrc(*corpus.arguments(**options), "--json")
    assert json.loads(outcome.output)["eer_interval"] is not None
    assert "warning: 1 labels contradict the speakers" in outcome.errors


def test_mistakes_in_the_set_up_are_told(voxsrc: Command, corpus: Corpus) -> None:
    distances = corpus.file("distances.txt", (-corpus.scores).tolist())
    assert "are the scores distances?" in voxsrc(*corpus.arguments(scores=distances, resamples="0")).errors
    outcome = voxsrc(*corpus.arguments(scores=corpus.trials, resamples="0"))
    assert "every score equals the trial's label" in outcome.errors
    corpus.pairs[0] = corpus.pairs[0][::-1]
    swapped = corpus.file("swapped.txt", corpus.scores.tolist())
    outcome = voxsrc(*corpus.arguments(scores=swapped, resamples="0"))
    assert "1 trials have the score of their pair the other way round" in outcome.errors
    assert "swapped.txt (1 swapped)" in outcome.output


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"p-target": "1"}, "--p-target is 1; expected a probability"),
        ({"resamples": "-1"}, "--resamples is -1; expected at least 0"),
        ({"scores": "absent.txt"}, "absent.txt"),
    ],
)
def test_bad_options_are_one_line(
    voxsrc: Command, corpus: Corpus, options: dict[str, str], problem: str
) -> None:
    outcome = voxsrc(*corpus.arguments(**options))
    assert (outcome.code, outcome.output) == (1, "")
    assert problem in outcome.error


def test_lists_that_have_no_error_rates(voxsrc: Command, corpus: Corpus) -> None:
    blind = corpus.file("blind.txt", [""] * 300)
    assert "has no labels" in voxsrc(*corpus.arguments(trials=blind)).error
    targets = corpus.file("targets.txt", [1] * 300)
    assert "both kinds are needed" in voxsrc(*corpus.arguments(trials=targets)).error


def test_a_submission_is_written_and_checked(voxsrc: Command, corpus: Corpus) -> None:
    blind, output = corpus.file("blind.txt", [""] * 300), str(corpus.folder / "mine.zip")
    written = voxsrc("submission", "write", *corpus.arguments(trials=blind, output=output)[1:])
    assert f"{output}: 300 lines, as scores.txt" in written.output
    assert "not probabilities" in written.output
    checked = voxsrc("submission", "check", output, "--trials", blind)
    assert (checked.code, checked.output) == (0, f"{output}: valid, 300 lines for 300 trials\n")
    raw = voxsrc("submission", "check", corpus.score_file, "--trials", blind)
    num_outside = int(((corpus.scores < 0) | (corpus.scores > 1)).sum())
    assert raw.code == 1
    assert f"not valid, {num_outside} outside [0, 1] (300 lines, 300 trials)" in raw.output
    first = int(np.flatnonzero((corpus.scores < 0) | (corpus.scores > 1))[0]) + 1
    assert raw.output.startswith(f"{corpus.score_file}:{first}: the score is")
    arguments = corpus.arguments(trials=blind, output=output, prior="0.5")[1:]
    assert "prior 0.5" in voxsrc("submission", "write", *arguments, "--calibrated").output


def test_trials_info(voxsrc: Command, corpus: Corpus) -> None:
    corpus.pairs[1:5] = [corpus.pairs[0], corpus.pairs[0][::-1], corpus.pairs[0], (corpus.pairs[9][0],) * 2]
    labels = corpus.labels.tolist()
    labels[:5] = [0, 0, 0, 1, 1]
    first = corpus.speakers[0]
    uri = corpus.file("odd.txt", labels)
    summary = json.loads(voxsrc("trials", "info", uri, "--json").output)
    assert summary["name"] is None
    assert summary["description"] == "not an official list (300 trials)"
    assert (summary["num_trials"], summary["num_targets"]) == (300, sum(labels))
    assert summary["num_nontargets"] == 300 - sum(labels)
    assert (summary["num_utterances"], summary["num_speakers"]) == (592, 8)
    assert (summary["num_duplicates"], summary["num_reversed"]) == (2, 1)
    assert (summary["num_conflicting"], summary["num_self_trials"]) == (1, 1)
    assert summary["num_contradictions"] == (3 if first[0] == first[1] else 1)
    assert "8, by the paths" in voxsrc("trials", "info", uri).output
    blind = voxsrc("trials", "info", corpus.file("blind.txt", [""] * 300))
    assert "300 (blind)" in blind.output
    assert "labels against paths" not in blind.output
    assert voxsrc("trials", "info", str(corpus.folder / "absent.txt")).code == 1
