import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxsrc.corpus import (
    Utterance,
    read_trials,
    read_utterance_list,
    session_of,
    speed_copies,
    split_speakers,
    utterances_from_paths,
    write_utterance_list,
)
from voxsrc.errors import CorpusError, FeatureSetError, NotFoundError

NAMES = st.text(
    st.characters(categories=("L", "N", "P", "S", "Zs"), exclude_characters="/"), min_size=1, max_size=12
).filter(lambda name: name == name.strip() and name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def written(folder: Path, content: str | bytes) -> str:
    file = folder / "list.txt"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(file)


def error_of(uri: str) -> str:
    with pytest.raises(CorpusError) as caught:
        read_utterance_list(uri)
    return str(caught.value)


def trial_error_of(uri: str) -> str:
    with pytest.raises(CorpusError) as caught:
        read_trials(uri)
    return str(caught.value)


def test_voxcelebs_own_form(tmp_path: Path) -> None:
    uri = written(tmp_path, "id10001 id10001/abc/00001.wav\nid10002 id10002/x-y_z/00007.wav\n")
    assert read_utterance_list(uri) == [
        Utterance("id10001/abc/00001.wav", "id10001", "abc"),
        Utterance("id10002/x-y_z/00007.wav", "id10002", "x-y_z"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"a s/1.wav\nb s/2.wav",
        b"a s/1.wav\r\nb s/2.wav\r\n",
        b"\xef\xbb\xbfa s/1.wav\nb s/2.wav\n",
        b"\n  a   s/1.wav  \n\n\tb\ts/2.wav\t\n\n",
    ],
    ids=["no-final-newline", "crlf", "byte-order-mark", "blanks"],
)
def test_harmless_variations_of_a_list(tmp_path: Path, content: bytes) -> None:
    utterances = read_utterance_list(written(tmp_path, content))
    assert utterances == [Utterance("s/1.wav", "a", "s"), Utterance("s/2.wav", "b", "s")]


def test_paths_and_with_tabs_speakers_may_have_spaces(tmp_path: Path) -> None:
    uri = written(tmp_path, "ann a b/1 ü.wav\nJane Doe\tJane Doe/2.wav\n")
    assert read_utterance_list(uri) == [
        Utterance("a b/1 ü.wav", "ann", "a b"),
        Utterance("Jane Doe/2.wav", "Jane Doe", "Jane Doe"),
    ]


@given(st.dictionaries(PATHS, NAMES, min_size=1))
@settings(max_examples=60)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, listed: dict[str, str]) -> None:
    uri = str(tmp_path_factory.getbasetemp() / "written.txt")
    utterances = [Utterance(path, speaker, session_of(path)) for path, speaker in listed.items()]
    write_utterance_list(uri, utterances)
    assert read_utterance_list(uri) == utterances


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("alone.wav", "1 column(s), expected `speaker path`"),
        ("a /etc/passwd.wav", "'/etc/passwd.wav' leaves the audio folder; expected a path relative to it"),
        ("a b/../../c.wav", "'b/../../c.wav' leaves the audio folder; expected a path relative to it"),
        ("a s/1.wav", "'s/1.wav' is listed already at line 1; list it once"),
        ("b s/1.wav", "'s/1.wav' is listed already at line 1; list it once"),
        ("1 a/1.wav b/2.wav", "a trial (`label path path`), expected `speaker path`; is this a trial list?"),
        (
            "0\ta/1.wav\tb/2.wav",
            "a trial (`label path path`), expected `speaker path`; is this a trial list?",
        ),
        ("a/1.wav b/2.wav", "two paths, expected `speaker path`; is this a list of blind trials?"),
        ("a b\0c.wav", "'b\\x00c.wav' has a NUL character; expected a list in UTF-8: convert it"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    uri = written(tmp_path, f"a s/1.wav\n\n{line}\nb s/2.wav\n")
    assert error_of(uri) == f"{uri}:3: {message}"


def test_all_malformed_lines_are_gathered_but_only_ten_shown(tmp_path: Path) -> None:
    uri = written(tmp_path, "a s/1.wav\n" + "bad\n" * 12)
    lines = error_of(uri).split("\n")
    assert [line.split(": ")[0] for line in lines[:-1]] == [f"{uri}:{n}" for n in range(2, 12)]
    assert lines[-1] == "… and 2 more such lines"


@pytest.mark.parametrize(
    ("mark", "line", "byte"), [(b"", 3, "0xe9"), (b"\xef\xbb\xbf", 3, "0xe9")], ids=["plain", "with-mark"]
)
def test_latin_1_is_refused_at_its_line(tmp_path: Path, mark: bytes, line: int, byte: str) -> None:
    uri = written(tmp_path, mark + b"a s/1.wav\nb s/2.wav\nc s/Andr\xe9.wav\n")
    assert error_of(uri) == f"{uri}:{line}: not UTF-8 (byte {byte}); convert the list"


def test_utf_16_is_refused(tmp_path: Path) -> None:
    text = "a s/1.wav\nb s/2.wav\n"
    assert "not UTF-8 (byte 0xff)" in error_of(written(tmp_path, text.encode("utf-16")))
    assert "expected a list in UTF-8" in error_of(written(tmp_path, text.encode("utf-16-le")))


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_list_is_an_error(tmp_path: Path, content: str) -> None:
    uri = written(tmp_path, content)
    assert error_of(uri) == f"{uri} lists no utterances; expected lines `speaker path`"
    assert trial_error_of(uri) == f"{uri} lists no trials; expected lines `1|0 path path`"


def test_a_missing_list(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.txt: cannot read: it does not exist"):
        read_utterance_list(str(tmp_path / "gone.txt"))


def test_labelled_trials(tmp_path: Path) -> None:
    trials = read_trials(written(tmp_path, "1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n0\tb/ 1.wav\ta/2.wav\n"))
    assert trials.labels is not None
    assert trials.labels.dtype == np.int8
    assert trials.labels.tolist() == [1, 0, 0]
    assert len(trials) == 3
    assert trials.enrollments == ["a/1.wav", "a/1.wav", "b/ 1.wav"]
    assert trials.tests == ["a/2.wav", "b/1.wav", "a/2.wav"]
    assert trials.utterance_ids() == ["a/1.wav", "a/2.wav", "b/1.wav", "b/ 1.wav"]


def test_blind_trials(tmp_path: Path) -> None:
    trials = read_trials(written(tmp_path, "a.wav b.wav\nb.wav c.wav\n"))
    assert trials.labels is None
    assert trials.enrollments == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 a.wav", "a path after a name, expected two paths; is this an utterance list?"),
        ("id10001 id10001/a/1.wav", "a path after a name, expected two paths; is this an utterance list?"),
        (
            "2 a.wav b.wav",
            "3 column(s), expected `1|0 path path` or `path path`; "
            "separate the columns by tabs if paths have spaces",
        ),
        ("1 ../a.wav b.wav", "'../a.wav' leaves the audio folder; expected a path relative to it"),
        ("1 a.wav /b.wav", "'/b.wav' leaves the audio folder; expected a path relative to it"),
    ],
)
def test_malformed_trials_are_named(tmp_path: Path, line: str, message: str) -> None:
    uri = written(tmp_path, f"1 a.wav b.wav\n{line}\n")
    assert trial_error_of(uri) == f"{uri}:2: {message}"


def test_labels_are_given_throughout_or_not_at_all(tmp_path: Path) -> None:
    uri = written(tmp_path, "1 a.wav b.wav\na.wav c.wav\n0 b.wav c.wav\n")
    assert trial_error_of(uri) == f"{uri} has 1 trials without a label among 3; label all or none"


@pytest.mark.parametrize(
    ("paths", "prefix", "speakers"),
    [
        (["s1/a/1.wav", "s1/b/1.wav", "s2/a/1.wav"], "", ["s1", "s1", "s2"]),
        (["s1/1.wav", "s2/1.wav"], "", ["s1", "s2"]),
        (["s1/1.wav", "s2/a/1.wav"], "", ["s1", "s2"]),
        (["dev/aac/s1/a/1.m4a", "dev/aac/s2/b/1.m4a"], "dev/aac/", ["s1", "s2"]),
        (["s1/a/1.wav", "s1/a/2.wav"], "", ["s1", "s1"]),
        (["s1/1.wav"], "", ["s1"]),
        (["top/s1/a/1.wav", "top/s1/b/1.wav"], "top/", ["s1", "s1"]),
    ],
)
def test_layouts_without_a_list(paths: list[str], prefix: str, speakers: list[str]) -> None:
    utterances, found = utterances_from_paths(reversed(paths))
    assert found == prefix
    assert [prefix + utterance.utterance_id for utterance in utterances] == paths
    assert [utterance.speaker_id for utterance in utterances] == speakers
    assert [utterance.session_id for utterance in utterances] == [path.split("/")[-2] for path in paths]


def test_paths_are_ordered_by_their_bytes() -> None:
    paths = ["s/é.wav", "s/z.wav", "s/Z.wav", "s/\N{FULLWIDTH LATIN SMALL LETTER A}.wav", "s/𝒜.wav"]
    utterances, _ = utterances_from_paths(paths)
    assert [u.utterance_id for u in utterances] == sorted(paths, key=lambda path: path.encode())


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "there are no audio files; expected speaker/[session/]file"),
        (["1.wav", "s/2.wav"], "'1.wav' is not speaker/[session/]file below the top; give a list instead"),
        (
            ["a/b/c/1.wav", "s/2.wav"],
            "'a/b/c/1.wav' is not speaker/[session/]file below the top; give a list instead",
        ),
    ],
)
def test_other_layouts_need_a_list(paths: list[str], message: str) -> None:
    with pytest.raises(CorpusError) as caught:
        utterances_from_paths(paths)
    assert str(caught.value) == message


def test_the_speakers_of_speed_perturbed_copies() -> None:
    # As an extraction writes the speeds 9/10, 2 and 2/3 into its manifest, and marks copies with them.
    made_from = {"speeds": ["0.9", "2.0", "0.6666666666666666"]}
    marked = ["id1-sp0.9", "id1-sp2", "id1-sp0.666667", "anna-sp1-sp0.9"]
    assert speed_copies(["id1", "anna-sp1", *marked], made_from) == {
        "id1-sp0.9": "id1",
        "id1-sp2": "id1",
        "id1-sp0.666667": "id1",
        "anna-sp1-sp0.9": "anna-sp1",
    }


@pytest.mark.parametrize(
    ("speakers", "speeds"),
    [
        (["anna-sp1", "anna-sp2"], ["0.9"]),
        (["anna", "anna-sp1", "anna-sp2"], ["0.9"]),
        (["anna", "anna-sp2"], []),
        (["anna", "anna-sp0.9"], ["1.1"]),
        (["bob", "anna-sp0.9"], ["0.9"]),
        (["anna", "anna-sp0.90"], ["0.9"]),
    ],
)
def test_people_whose_names_look_like_copies(speakers: list[str], speeds: list[str]) -> None:
    assert speed_copies(speakers, {"speeds": speeds}) == {}
    assert speed_copies(speakers, {}) == {}


def test_who_may_be_a_copy_stays_with_the_speaker_without_any_mark() -> None:
    made_from = {"speeds": ["0.9", "1.1"]}
    speakers = ["a-sp0.9-sp1.1", "a-sp0.9", "a"]
    assert speed_copies(speakers, made_from) == {"a-sp0.9": "a", "a-sp0.9-sp1.1": "a"}


@pytest.mark.parametrize("speeds", [None, 0.9, "0.9", ["fast"], [["0.9"]]])
def test_speeds_that_are_none(speeds: object) -> None:
    with pytest.raises(FeatureSetError, match=r"made_from.speeds .* is .*; expected a list such as"):
        speed_copies(["a"], {"speeds": speeds})


def test_people_called_alike_are_split_like_any_others() -> None:
    people = [f"speaker-sp{number}" for number in range(1, 9)]
    training, validation = split_speakers(people, copies={}, validation_fraction=0.25)
    assert (len(training), len(validation)) == (6, 2)


SPEAKERS = st.sets(st.integers(0, 10**6), min_size=4, max_size=60).map(
    lambda numbers: [f"id{number}" for number in sorted(numbers)]
)


@given(SPEAKERS, st.floats(0.0, 0.4), st.randoms())
def test_speakers_are_split_in_two_by_the_speakers_alone(
    speakers: list[str], fraction: float, chance: random.Random
) -> None:
    copies = [f"{speaker}-sp{speed}" for speaker in speakers[::2] for speed in ("0.9", "1.1")]
    listed = 2 * (speakers + copies)
    chance.shuffle(listed)
    original_of = {copy: copy.partition("-")[0] for copy in copies}
    training, validation = split_speakers(listed, copies=original_of, validation_fraction=fraction)
    assert sorted(training + validation) == sorted(set(listed))
    assert training == sorted(training)
    assert validation == sorted(validation)
    held_out = {speaker.partition("-")[0] for speaker in validation}
    assert held_out.isdisjoint(speaker.partition("-")[0] for speaker in training)
    assert len(held_out) == max(2, round(fraction * len(speakers)))
    again = split_speakers(speakers + copies, copies=original_of, validation_fraction=fraction)
    assert again == (training, validation)


def test_the_split_is_the_same_on_every_machine() -> None:
    speakers = [f"id{number:05d}" for number in range(10_001, 10_011)]
    _, validation = split_speakers(speakers, copies={}, validation_fraction=0.3)
    assert validation == ["id10001", "id10004", "id10006"]


def test_adding_a_speaker_moves_few() -> None:
    speakers = [f"id{number}" for number in range(1_000)]
    _, before = split_speakers(speakers, copies={}, validation_fraction=0.1)
    _, after = split_speakers([*speakers, "new"], copies={}, validation_fraction=0.1)
    assert len(set(before) ^ set(after)) <= 2


@pytest.mark.parametrize(("num_speakers", "fraction"), [(3, 0.1), (4, 0.9), (0, 0.1)])
def test_too_few_speakers_to_split(num_speakers: int, fraction: float) -> None:
    with pytest.raises(CorpusError, match=f"{num_speakers} speakers cannot be split"):
        split_speakers([f"id{n}" for n in range(num_speakers)], copies={}, validation_fraction=fraction)


def test_ids_are_as_listed_even_if_unicode_knows_another_form(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "s/é.wav")
    [utterance] = read_utterance_list(written(tmp_path, f"a {decomposed}\n"))
    assert utterance.utterance_id == decomposed
