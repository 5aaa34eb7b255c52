"""Submissions: the order of the scores survives, and the validator finds what the writer never does."""

import io
import random
import tracemalloc
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxsrc import storage
from voxsrc.corpus import TrialList
from voxsrc.errors import VoxsrcError
from voxsrc.metrics import equal_error_rate, error_rates, min_dcf
from voxsrc.scores import ScoreError, matched, read_scores
from voxsrc.submission import Report, SubmissionError, unit_scores, validate_submission, write_submission

PAIRS = [("a/1.wav", "b/1.wav"), ("a/2.wav", "b/1.wav"), ("b/1.wav", "a/1.wav"), ("c/1.wav", "a/2.wav")]
TRIALS = TrialList(None, [first for first, _ in PAIRS], [second for _, second in PAIRS])
SCORES = [0.25, -3.5, 2.0, 0.25]
VALID = "".join(
    f"{score} {first} {second}\n"
    for score, (first, second) in zip(["0.1", "0.9", "1", "0"], PAIRS, strict=True)
)

# Neighbouring floats, saturated and huge ones: where a careless map makes ties or loses order.
HARD = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5e-324, 1.0, np.nextafter(1.0, 0.0), np.nextafter(1.0, 2.0), 40.0, 50.0]),
    st.sampled_from([-800.0, -750.0, 750.0, 1.7e308, -1.7e308]),
)


@pytest.fixture
def trial_list(tmp_path: Path) -> str:
    (tmp_path / "trials.txt").write_text("".join(f"{first} {second}\n" for first, second in PAIRS))
    return str(tmp_path / "trials.txt")


def comparisons(values: Sequence[float]) -> list[list[bool]]:
    column = np.asarray(values)[:, None]
    return [(column < column.T).tolist(), (column == column.T).tolist()]


@pytest.mark.parametrize("calibrated", [False, True])
@settings(max_examples=200)
@given(scores=st.lists(HARD, min_size=1, max_size=30))
def test_order_and_ties_are_kept_exactly_in_the_printed_digits(calibrated: bool, scores: list[float]) -> None:
    unit = unit_scores(scores, calibrated=calibrated)
    printed = [float(repr(value)) for value in unit.values.tolist()]
    assert all(0 <= value <= 1 for value in printed)
    assert comparisons(printed) == comparisons(scores)


def test_error_rates_of_a_submission_are_those_of_the_scores(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 3000)
    # Rounding makes ties; the factor saturates the probabilities.
    scores = np.round(generator.normal(labels, 1), 2) * 60
    names = [f"u{index}" for index in range(3000)]
    trials = TrialList(labels.astype(np.int8), names, names[::-1])
    for calibrated in (False, True):
        uri = str(tmp_path / "scores.txt")
        write_submission(uri, trials, scores, calibrated=calibrated)
        before = error_rates(scores, labels)
        after = error_rates(matched(read_scores(uri), trials).scores, labels)
        assert equal_error_rate(after) == equal_error_rate(before)
        assert [min_dcf(after, p) for p in (0.05, 0.01)] == [min_dcf(before, p) for p in (0.05, 0.01)]
        np.testing.assert_array_equal(after.false_accepts, before.false_accepts)


def test_calibrated_scores_become_probabilities() -> None:
    unit = unit_scores([0.0, np.log(19), -np.log(19)], calibrated=True)
    assert unit.values == pytest.approx([0.05, 0.5, 1 / 362])
    assert unit_scores([0.0], calibrated=True, prior=0.5).values == pytest.approx([0.5])
    assert "prior 0.05" in unit.how


def test_scores_in_the_unit_interval_stay_as_they_are() -> None:
    unit = unit_scores([0.25, 1.0, -0.0])
    assert [repr(value) for value in unit.values.tolist()] == ["0.25", "1.0", "0.0"]
    assert unit.how.startswith("unchanged")
    others = unit_scores([0.25, 1.5])
    assert "not probabilities" in others.how
    assert others.values == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)])


@pytest.mark.parametrize(
    ("scores", "prior", "problem"),
    [([], 0.05, r"\(0,\) scores"), ([np.nan], 0.05, "finite"), ([1.0], 1.0, "prior 1, expected a prob")],
)
def test_scores_that_cannot_be_mapped(scores: list[float], prior: float, problem: str) -> None:
    with pytest.raises(SubmissionError, match=problem):
        unit_scores(scores, prior=prior)


def test_a_written_submission_is_valid_and_its_bytes_are_always_the_same(
    tmp_path: Path, trial_list: str, bucket: str
) -> None:
    first, second = str(tmp_path / "1.zip"), f"{bucket}/2.zip"
    written = write_submission(first, TRIALS, SCORES)
    write_submission(second, TRIALS, SCORES)
    assert storage.read_bytes(first) == storage.read_bytes(second)
    assert (written.num_lines, written.member) == (4, "scores.txt")
    assert written.num_bytes == storage.stat(first).size
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == ["scores.txt"]
        zipped = archive.read("scores.txt")
    text = str(tmp_path / "scores.txt")
    assert write_submission(text, TRIALS, SCORES).member is None
    assert storage.read_bytes(text) == zipped
    assert [line.split()[1:] for line in zipped.decode().splitlines()] == [list(pair) for pair in PAIRS]
    for uri in (first, second, text):
        report = validate_submission(uri, trial_list)
        assert report == Report(uri, 4, 4, {}, [], [])
        assert report.valid


def test_what_cannot_be_written(tmp_path: Path) -> None:
    uri = str(tmp_path / "1.zip")
    spaced = TrialList(None, ["a b.wav"], ["c.wav"])
    with pytest.raises(SubmissionError, match=r"1 paths have spaces, such as 'a b\.wav'"):
        write_submission(uri, spaced, [0.5])
    with pytest.raises(SubmissionError, match="without folders"):
        write_submission(uri, TRIALS, SCORES, member="../scores.txt")
    with pytest.raises(ScoreError, match="for 4 trials"):
        write_submission(uri, TRIALS, SCORES[:3])
    assert not storage.exists(uri)


def checked(folder: Path, trial_list: str, content: str | bytes) -> Report:
    file = folder / "mine.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return validate_submission(str(file), trial_list)


@pytest.mark.parametrize(
    ("old", "new", "kind", "problem"),
    [
        (
            "0.9 a/2.wav",
            "a/2.wav",
            "columns",
            ":2: 'a/2.wav b/1.wav', expected `score path path` with single",
        ),
        ("0.9 a/2.wav", "0.9  a/2.wav", "columns", ":2: '0.9  a/2.wav b/1.wav', expected `score path path`"),
        ("0.9 a/2.wav", "0.9\ta/2.wav", "columns", ":2: "),
        ("\n0.9", "\n\n0.9", "columns", ":2: '', expected `score path path`"),
        ("0.9", "high", "not a number", ":2: the score is 'high', expected a number in [0, 1]"),
        ("0.9", "0_9", "not a number", ":2: the score is '0_9', expected a number in [0, 1]"),
        ("0.9", "nan", "not finite", ":2: the score is 'nan', expected a number in [0, 1]"),
        ("0.9", "-inf", "not finite", ":2: the score is '-inf', expected a number in [0, 1]"),
        ("0.9", "1.0000000000000002", "outside [0, 1]", ":2: the score is '1.0000000000000002', expected a"),
        ("0.9", "-1e-9", "outside [0, 1]", ":2: the score is '-1e-9', expected a number in [0, 1]"),
        ("0.9", "1e999", "outside [0, 1]", ":2: the score is '1e999', expected a number in [0, 1]"),
        (
            "a/2.wav b/1",
            "a/3.wav b/1",
            "not in the list",
            ":2: a/3.wav b/1.wav, expected a pair of the trial",
        ),
        ("0 c/1.wav a/2.wav", "0 a/2.wav c/1.wav", "not in the list", "the pair the other way round"),
        ("0.9 a/2.wav b/1.wav\n", "", "missing", ": no line for trial 2, a/2.wav b/1.wav"),
        ("0 c", "0 a/1.wav b/1.wav\n0 c", "duplicated", ":4: a/1.wav b/1.wav is at line 1 already"),
        ("1 b/1.wav a/1.wav\n0 c/1.wav a/2.wav", "0 c/1.wav a/2.wav\n1 b/1.wav a/1.wav", "order", ":3: c/1"),
        ("a/2.wav b/1.wav", "a/2.wav\u00a0b/1.wav", "columns", ":2: "),
    ],
)
def test_each_kind_of_problem_is_found_and_its_line_named(
    tmp_path: Path, trial_list: str, old: str, new: str, kind: str, problem: str
) -> None:
    assert VALID.count(old) == 1
    report = checked(tmp_path, trial_list, VALID.replace(old, new))
    assert not report.valid
    assert kind in report.counts
    assert report.problems[0].startswith(report.uri)
    assert problem in report.problems[0]


def test_the_whole_file_may_be_wrong(tmp_path: Path, trial_list: str) -> None:
    assert checked(tmp_path, trial_list, VALID).valid
    empty = checked(tmp_path, trial_list, "")
    assert empty.counts == {"missing": 4}
    assert "no line for trial 1, a/1.wav b/1.wav, nor for 3 others" in empty.problems[0]
    constant = "".join(
        f"{score} {' '.join(pair)}\n"
        for score, pair in zip(["0.5", ".5", "5e-1", "0.50"], PAIRS, strict=True)
    )
    report = checked(tmp_path, trial_list, constant)
    assert report.counts == {"all scores equal": 1}
    latin = checked(tmp_path, trial_list, VALID.replace("c/1", "ç/1").encode("latin-1"))
    assert latin.problems[0] == f"{latin.uri}:4: byte 0xe7, expected UTF-8"
    # Byte for byte what the list has, but with a mark that Python's `float` does not take.
    assert checked(tmp_path, trial_list, b"\xef\xbb\xbf" + VALID.encode()).counts == {"not a number": 1}


def test_line_ends_do_not_matter(tmp_path: Path, trial_list: str) -> None:
    dos = checked(tmp_path, trial_list, VALID.replace("\n", "\r\n"))
    assert dos.valid
    assert "CRLF" in dos.notes[0]
    assert checked(tmp_path, trial_list, VALID.removesuffix("\n")).valid


def test_all_problems_are_counted_and_three_of_each_kind_listed(tmp_path: Path) -> None:
    names = [f"{index:02d}.wav" for index in range(20)]
    (tmp_path / "trials.txt").write_text("".join(f"x/1.wav s/{name}\n" for name in names))
    lines = [f"{'2' if index < 9 else '0.5'} x/1.wav s/{name}\n" for index, name in enumerate(names)]
    lines[4] = "0.1 x/1.wav\n"
    report = checked(tmp_path, str(tmp_path / "trials.txt"), "".join(lines))
    assert report.counts == {"outside [0, 1]": 8, "columns": 1, "missing": 1, "all scores equal": 1}
    assert [problem.split(": ")[0].rsplit(":")[-1] for problem in report.problems[:4]] == list("1235")


def test_a_pair_listed_twice_needs_two_lines(tmp_path: Path, trial_list: str) -> None:
    with Path(trial_list).open("a") as file:
        file.write("a/1.wav b/1.wav\n")
    assert checked(tmp_path, trial_list, VALID).counts == {"missing": 1}
    assert checked(tmp_path, trial_list, VALID + "0.3 a/1.wav b/1.wav\n").valid
    assert checked(tmp_path, trial_list, VALID + "0.3 a/1.wav b/1.wav\n" * 2).counts == {"duplicated": 1}


def zipped(folder: Path, members: dict[str, str], compression: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(folder / "mine.zip", "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return str(folder / "mine.zip")


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({}, r"0 files \(none\), expected 'scores\.txt' alone"),
        ({"scores.txt": VALID, "__MACOSX/._scores.txt": ""}, r"2 files \('scores\.txt', '__MACOSX/"),
        ({"out/scores.txt": VALID}, "'out/scores.txt', expected 'scores.txt' outside any folder"),
        ({"../scores.txt": VALID}, "outside any folder"),
        ({"/etc/scores.txt": VALID}, "outside any folder"),
        ({"C:\\scores.txt": VALID}, "outside any folder"),
        ({"scores/": ""}, "outside any folder"),
        ({"scores.txt": "0" * 50_000_000}, "50,000,000 bytes, expected at most"),
    ],
)
def test_an_unsafe_archive_is_not_opened(
    tmp_path: Path, trial_list: str, members: dict[str, str], problem: str
) -> None:
    with pytest.raises(SubmissionError, match=problem):
        validate_submission(zipped(tmp_path, members), trial_list)


def test_other_archives(tmp_path: Path, trial_list: str) -> None:
    report = validate_submission(zipped(tmp_path, {"answer.txt": VALID}), trial_list)
    assert report.valid
    assert "'answer.txt'" in report.notes[0]
    wrong = validate_submission(zipped(tmp_path, {"scores.txt": VALID.replace("0.9", "9")}), trial_list)
    assert wrong.problems[0].startswith(f"{tmp_path}/mine.zip/scores.txt:2: the score is '9'")
    with pytest.raises(SubmissionError, match="compression method 14"):
        validate_submission(zipped(tmp_path, {"scores.txt": VALID}, zipfile.ZIP_LZMA), trial_list)
    (tmp_path / "mine.zip").write_text(VALID)
    with pytest.raises(SubmissionError, match="not a whole zip"):
        validate_submission(str(tmp_path / "mine.zip"), trial_list)
    (tmp_path / "huge.txt").write_bytes(b"0" * 3_000_000)
    with pytest.raises(SubmissionError, match="3,000,000 bytes, expected at most"):
        validate_submission(str(tmp_path / "huge.txt"), trial_list)


def test_an_archive_that_lies_about_its_size_is_not_expanded(tmp_path: Path, trial_list: str) -> None:
    uri = Path(zipped(tmp_path, {"scores.txt": "0" * 50_000_000}))
    content = uri.read_bytes()
    size, lie = (number.to_bytes(4, "little") for number in (50_000_000, 100))
    assert content.count(size) == 2
    uri.write_bytes(content.replace(size, lie))
    tracemalloc.start()
    with pytest.raises(SubmissionError, match="not a whole zip"):
        validate_submission(str(uri), trial_list)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10_000_000


def test_damaged_archives_end_in_our_own_errors(tmp_path: Path, trial_list: str) -> None:
    source = io.BytesIO()
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scores.txt", VALID)
    whole, generator = source.getvalue(), random.Random(0)
    outcomes = set()
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 3)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        (tmp_path / "mine.zip").write_bytes(damaged[: generator.choice([len(damaged), len(damaged) - 9])])
        try:
            outcomes.add(validate_submission(str(tmp_path / "mine.zip"), trial_list).valid)
        except VoxsrcError as error:
            outcomes.add(type(error))
    assert SubmissionError in outcomes
