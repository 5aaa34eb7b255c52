"""Score files: read, written and matched with trials by the pair."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxsrc import storage
from voxsrc.corpus import TrialList
from voxsrc.errors import ConfigError
from voxsrc.scores import ScoreError, ScoreFile, matched, named_scores, read_scores, write_scores

PATHS = st.text(
    st.characters(categories=("L", "N", "P", "S"), exclude_characters="/"), min_size=1, max_size=4
)
SPACED = st.lists(PATHS, min_size=1, max_size=2).map(" ".join)


def trials(*pairs: tuple[str, str]) -> TrialList:
    return TrialList(None, [first for first, _ in pairs], [second for _, second in pairs])


def written(folder: Path, content: str | bytes) -> str:
    (folder / "scores.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder / "scores.txt")


def error_of(uri: str) -> str:
    with pytest.raises(ScoreError) as caught:
        read_scores(uri)
    return str(caught.value)


def test_lines_are_read_with_spaces_or_tabs(tmp_path: Path) -> None:
    uri = written(tmp_path, "0.5 a b\n\n-1e-3\ta x\tc\r\n  7   b    a \n")
    scores = read_scores(uri)
    assert scores.scores.tolist() == [0.5, -0.001, 7.0]
    assert list(zip(scores.enrollments, scores.tests, strict=True)) == [("a", "b"), ("a x", "c"), ("b", "a")]
    assert (len(scores), scores.num_duplicates, scores.uri) == (3, 0, uri)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0.5 a", "2 column(s), expected `score path path`"),
        ("0.5 a b c", "4 column(s), expected `score path path`"),
        ("0.5\ta\t", "2 column(s), expected `score path path`"),
        ("0.5\t\tb", "3 column(s), expected `score path path`"),
        ("high a b", "the score is 'high', expected a number"),
        ("1_0 a b", "the score is '1_0', expected a number"),
        ("nan a b", "the score is nan, expected a finite number"),
        ("-inf a b", "the score is -inf, expected a finite number"),
        ("1e999 a b", "the score is 1e999, expected a finite number"),
        ("a.wav b.wav 0.5", "the score '0.5' is last, expected it first: `score path path`"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    uri = written(tmp_path, f"0.1 x y\n\n{line}\n")
    assert error_of(uri) == f"{uri}:3: {problem}"


def test_many_errors_are_counted_and_ten_listed(tmp_path: Path) -> None:
    lines = error_of(written(tmp_path, "x a b\n" * 12)).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "… and 2 more"


def test_no_scores_and_other_encodings(tmp_path: Path) -> None:
    assert "has no scores" in error_of(written(tmp_path, "\n \n"))
    uri = written(tmp_path, b"0.5 a b\n0.5 a \xff\n")
    assert error_of(uri).startswith(f"{uri}:2: not UTF-8")
    assert read_scores(written(tmp_path, b"\xef\xbb\xbf0.5 a b\n")).scores.tolist() == [0.5]


def test_repeated_pairs(tmp_path: Path) -> None:
    scores = read_scores(written(tmp_path, "3 b a\n1 a b\n3.0 b a\n2 a c\n1 a b\n1 a b\n"))
    assert scores.num_duplicates == 3
    assert list(zip(scores.scores, scores.enrollments, scores.tests, strict=True)) == [
        (3.0, "b", "a"),
        (1.0, "a", "b"),
        (2.0, "a", "c"),
    ]
    uri = written(tmp_path, "1 a b\n2 a c\n1.5 a b\n")
    assert error_of(uri) == (f"{uri}:3: a b has score 1.5, but 1.0 at line 1; expected one score for a pair")


def score_file(*rows: tuple[float, str, str]) -> ScoreFile:
    values, enrollments, tests = zip(*rows, strict=True)
    return ScoreFile("scores.txt", np.array(values), list(enrollments), list(tests), 0)


def test_scores_are_matched_by_the_pair_in_the_order_of_the_trials() -> None:
    scores = score_file((1.0, "a", "b"), (2.0, "b", "a"), (3.0, "c", "a"), (4.0, "x", "y"))
    found = matched(scores, trials(("a", "c"), ("b", "a"), ("a", "b"), ("b", "a")))
    # The exact pair goes before the one the other way round.
    assert found.scores.tolist() == [3.0, 2.0, 1.0, 2.0]
    assert (found.num_swapped, found.num_extra) == (1, 1)


def test_missing_trials_are_counted_and_ten_named() -> None:
    wanted = trials(("a", "b"), *((f"u{index}", "v") for index in range(12)))
    with pytest.raises(ScoreError) as caught:
        matched(score_file((1.0, "a", "b")), wanted)
    lines = str(caught.value).splitlines()
    assert lines[0] == "scores.txt has no score for 12 of 13 trials; is it of another list?"
    assert lines[1] == "trial 2: u0 v"
    assert len(lines) == 12
    assert lines[-1] == "… and 2 more"


@settings(max_examples=60)
@given(
    pairs=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=12),
    listed=st.lists(
        st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde")), unique=True, min_size=1, max_size=20
    ),
)
def test_matching_agrees_with_a_dictionary(
    pairs: list[tuple[str, str]], listed: list[tuple[str, str]]
) -> None:
    score_of = {pair: float(place) for place, pair in enumerate(listed)}
    scores = score_file(*((score, *pair) for pair, score in score_of.items()))
    used = [pair if pair in score_of else pair[::-1] for pair in pairs]
    if not all(pair in score_of for pair in used):
        with pytest.raises(ScoreError, match=f"for {sum(pair not in score_of for pair in used)} of"):
            matched(scores, trials(*pairs))
        return
    found = matched(scores, trials(*pairs))
    assert found.scores.tolist() == [score_of[pair] for pair in used]
    assert found.num_swapped == sum(pair not in score_of for pair in pairs)
    assert found.num_extra == len(score_of.keys() - set(used))


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False), SPACED, SPACED),
        min_size=1,
        max_size=8,
        unique_by=lambda row: row[1:],
    )
)
def test_what_is_written_reads_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, str, str]]
) -> None:
    uri = str(tmp_path_factory.mktemp("scores") / "scores.txt")
    wanted = trials(*((first, second) for _, first, second in rows))
    write_scores(uri, wanted, [score for score, _, _ in rows])
    found = read_scores(uri)
    assert found.scores.tolist() == [score for score, _, _ in rows]
    assert matched(found, wanted).scores.tolist() == found.scores.tolist()


def test_float32_has_its_own_shortest_digits(tmp_path: Path) -> None:
    uri = str(tmp_path / "scores.txt")
    scores = np.array([0.1, -1 / 3, 1e-20], np.float32)
    write_scores(uri, trials(("a", "b"), ("a", "c"), ("a", "d")), scores)
    assert storage.read_bytes(uri) == b"0.1 a b\n-0.33333334 a c\n1e-20 a d\n"
    assert read_scores(uri).scores.astype(np.float32).tolist() == scores.tolist()


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        ([1.0], r"\(1,\) scores for 2 trials"),
        ([[1.0], [2.0]], r"\(2, 1\) scores for 2 trials"),
        ([1.0, float("nan")], "1 scores are not finite, the first of trial 2, a c: nan"),
    ],
)
def test_scores_that_cannot_be_written(tmp_path: Path, scores: list[float], problem: str) -> None:
    uri = str(tmp_path / "scores.txt")
    with pytest.raises(ScoreError, match=problem):
        write_scores(uri, trials(("a", "b"), ("a", "c")), scores)
    assert not storage.exists(uri)


@pytest.mark.parametrize(
    ("given", "name", "uri"),
    [
        ("baseline=runs/a/scores.txt", "baseline", "runs/a/scores.txt"),
        (" the first = a=b.txt ", "the first", "a=b.txt"),
        ("gs://bucket/runs/lr=0.1/scores.txt", "lr=0.1", "gs://bucket/runs/lr=0.1/scores.txt"),
        ("./lr=0.1/fused.v2.txt", "fused.v2", "./lr=0.1/fused.v2.txt"),
        ("/runs/a/scores.txt", "a", "/runs/a/scores.txt"),
        ("scores.txt", "scores", "scores.txt"),
        ("/scores.txt", "scores", "/scores.txt"),
        ("fused", "fused", "fused"),
    ],
)
def test_a_system_to_compare_with_has_a_name(given: str, name: str, uri: str) -> None:
    assert named_scores(given) == (name, uri)


@pytest.mark.parametrize("given", ["", " ", "=", "a=", "=a", " = a"])
def test_a_system_without_a_file_or_with_an_empty_name_is_refused(given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named_scores(given)
    assert f"--compare {given!r}: expected a score file" in str(caught.value)
