"""By what the report groups the trials: durations, sessions, columns of a table."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from evaluations import Evaluations, Trained, job
from evaluator.report import Condition
from evaluator.report.analysis import Analysis
from evaluator.report.conditions import condition_results
from evaluator.report.sections.groups import by_condition
from report_data import small_report
from voxsrc.corpus import TrialList, read_trials
from voxsrc.feature_set import FeatureSet
from voxsrc.metrics import equal_error_rate, error_rates


def conditions(evaluations: Evaluations) -> dict[str, Condition]:
    return {condition.name: condition for condition in evaluations.reports[-1].conditions}


def pairs_of(trials: TrialList) -> list[tuple[str, str]]:
    return list(zip(trials.enrollments, trials.tests, strict=True))


def test_durations_and_sessions(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    evaluations.metrics(tmp_path, *job(trained))
    trials, index = read_trials(trained.trials), FeatureSet.open(trained.test).index
    seconds = dict(zip(index.utterance_ids, index.num_frames / 100, strict=True))
    found = conditions(evaluations)
    assert list(found) == ["duration of the shorter utterance (s)", "session"]
    shorter = [min(seconds[first], seconds[second]) for first, second in pairs_of(trials)]
    np.testing.assert_allclose(list(found["duration of the shorter utterance (s)"].values), shorter)

    assert trials.labels is not None
    for (first, second), is_target, value in zip(
        pairs_of(trials), trials.labels, found["session"].values, strict=True
    ):
        if is_target:
            same = first.split("/")[1] == second.split("/")[1]
            assert value == ("same session" if same else "different sessions")
    scores, is_target = evaluations.reports[-1].main.scores, trials.labels == 1
    results = condition_results(Analysis(evaluations.reports[-1]), found["session"], 1, 10)
    assert [result.label for result in results] == ["different sessions", "same session"]
    for result in results:
        of_group = is_target & (np.array(found["session"].values) == result.label)
        used = of_group | ~is_target
        assert (result.num_targets, result.num_others) == (of_group.sum(), (~is_target).sum())
        expected = equal_error_rate(error_rates(scores[used], trials.labels[used]))
        assert result.results[0].eer.value == pytest.approx(expected)


def test_a_group_of_targets_takes_all_other_trials_whatever_is_known_of_these() -> None:
    labels = np.array([1, 0] * 60)
    of_targets = ["a" if number % 4 == 0 else "" for number in range(0, 120, 2)]
    values = [value for known in of_targets for value in (known, "never shown")]
    speakers = tuple("abcdef")
    data = small_report(num_trials=120, speakers=speakers, conditions=[])
    condition = Condition("room", values, targets_only=True)
    data = small_report(
        num_trials=120, speakers=speakers, labels=labels, conditions=[condition, Condition("hall", values)]
    )
    known, unknown = condition_results(Analysis(data), condition, 1, 10)
    assert (known.label, known.num_targets, known.num_others) == ("a", 30, 60)
    assert (unknown.label, unknown.num_targets, unknown.num_others) == ("unknown", 30, 60)
    assert known.false_accepts == unknown.false_accepts
    section = by_condition(Analysis(data))
    assert "By room same-speaker trials alone are divided" in section.explanation
    assert "same-speaker trials alone" not in by_condition(Analysis(small_report())).explanation


def test_a_folder_for_each_speaker_is_no_session(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    from voxsrc.corpus import session_of

    assert session_of("id050/0.wav") == "id050"
    with pytest.MonkeyPatch.context() as patch:
        # As of a set whose paths are `speaker/file`.
        patch.setattr("evaluator.conditions.session_of", lambda path: path.split("/")[0])
        evaluations.metrics(tmp_path, *job(trained))
    assert list(conditions(evaluations)) == ["duration of the shorter utterance (s)"]


def test_a_table_of_speakers_as_voxceleb_has_it(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    table = tmp_path / "vox1_meta.csv"
    rows = [
        f"id{number:03d}\tName_{number}\t{'mf'[number % 2]}\t{['Norway', 'Chile'][number % 3 == 0]}\tdev"
        for number in range(40, 60)
    ]
    header = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"
    table.write_text("\n".join([header, *rows]) + "\n")
    metrics = evaluations.metrics(tmp_path / "output", *job(trained, "--metadata", table))
    assert metrics["warnings"] == []
    found = conditions(evaluations)
    assert list(found)[2:] == ["VGGFace1 ID", "Gender", "Nationality", "Set"]
    for (first, second), gender in zip(
        pairs_of(read_trials(trained.trials)), found["Gender"].values, strict=True
    ):
        genders = sorted({"mf"[int(path[2:5]) % 2] for path in (first, second)})
        assert gender == " / ".join(genders)


def test_a_table_of_utterances_with_gaps(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    trials = read_trials(trained.trials)
    names = trials.utterance_ids()
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["utterance", "room", "note", "session"])
        for number, name in enumerate(names[1:]):
            writer.writerow([name, ["kitchen", "", "hall, small"][number % 3], "", f"s{number % 2}"])
        writer.writerow([])
        writer.writerow(["somebody/else.wav", "kitchen", "", "s0"])
    metrics = evaluations.metrics(tmp_path / "output", *job(trained, "--metadata", table))
    assert metrics["warnings"] == [
        f"{table} has nothing about 1 of {len(names)} utterances, such as {names[0]}; they count as unknown",
        f"{table}: column 'note' is empty; it makes no groups",
    ]
    assert evaluations.reports[-1].warnings == metrics["warnings"]
    found = conditions(evaluations)
    assert list(found)[1:] == ["session", "room", "session (metadata)"]
    room_of = dict(zip(names[1:], itertools.cycle(["kitchen", "", "hall, small"]), strict=False)) | {
        names[0]: ""
    }
    for (first, second), room in zip(pairs_of(trials), found["room"].values, strict=True):
        rooms = {room_of[first], room_of[second]}
        assert room == ("" if "" in rooms else " / ".join(sorted(rooms)))


def test_a_column_of_too_many_values_is_left_out(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    index = FeatureSet.open(trained.test).index
    table = tmp_path / "table.csv"
    rows = [f"{name};{number};{number % 2}" for number, name in enumerate(index.utterance_ids)]
    table.write_text("path;number;half\n" + "\n".join(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluator.conditions._MAX_VALUES", 10)
        metrics = evaluations.metrics(tmp_path / "output", *job(trained, "--metadata", table))
    assert metrics["warnings"] == [f"{table}: column 'number' has 30 values; it makes no groups"]
    assert list(conditions(evaluations))[2:] == ["half"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a header and rows of two columns or more"),
        (b"speaker,gender\n", "expected a header and rows of two columns or more"),
        (b"speaker\nid050\n", "expected a header and rows of two columns or more"),
        (b"speaker,gender\n\nid050,m\nid051\n", ":4: 1 columns, the header has 2"),
        (b'speaker,gender\nid050,"m\nor f"\nid051,m,f\n', ":4: 3 columns, the header has 2"),
        (b"speaker,gender\nid050,m\nid050,f\n", ":3: 'id050' stands above with other values"),
        (b"speaker,gender,gender\nid050,m,m\n", "several columns are called 'gender'"),
        (b"speaker,gender\nid999,m\n", "its first column, 'speaker', names no utterance and no speaker"),
        (b"speaker,gender\nid050,\xff\n", "not UTF-8"),
        (b'speaker,gender\nid050,"m\nid051,f\n', ":3: unexpected end of data"),
    ],
)
def test_what_is_no_table_is_refused_before_anything_is_embedded(
    content: bytes, message: str, trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(content)
    outcome = evaluations(*job(trained, "--metadata", table), "--output", tmp_path / "output")
    assert outcome.code == 1
    assert outcome.error.startswith(str(table))
    assert message in outcome.error
    assert evaluations.num_batches == 0


def test_the_table_may_have_a_byte_order_mark_and_crlf(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    rows = "".join(f"id05{number},{'mf'[number % 2]}\r\n" for number in range(6))
    table = tmp_path / "table.csv"
    table.write_bytes(b"\xef\xbb\xbfspeaker, gender\r\n" + rows.encode())
    evaluations.metrics(tmp_path / "output", *job(trained, "--metadata", table))
    assert set(conditions(evaluations)["gender"].values) == {"f", "m", "f / m"}
