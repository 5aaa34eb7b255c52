"""Several sources read as one."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from corpora import FORMS, contents_of, listed, store_corpus, write_files
from voxsrc import storage
from voxsrc.errors import ConfigError, CorpusError, NotFoundError
from voxsrc.sources import SeveralSources, audio_uris, match_all_files, match_utterances, open_sources

MEMBERS = {f"id{n % 7}/s/{n:03d}.wav": bytes([n]) * (100 + n) for n in range(140)}
PATHS = list(MEMBERS)
# Of the list's utterances the second source has late ones alone, the third a single one.
SHARES = [PATHS[:100], PATHS[100:139], PATHS[139:]]


def below(prefix: str, paths: list[str]) -> dict[str, bytes]:
    return {prefix + path: MEMBERS[path] for path in paths}


def store(place: str, form: str, members: Mapping[str, bytes], name: str) -> str:
    return store_corpus(storage.join(place, name), form, members)


def open_several(place: str, forms: tuple[str, str, str]) -> SeveralSources:
    """The corpus in three places, of which each has its files below another folder."""
    uris = [
        store(place, form, below(prefix, paths), name)
        for name, form, prefix, paths in zip("abc", forms, ("", "wav/", "dev/aac/"), SHARES, strict=True)
    ]
    several = open_sources(uris)
    assert isinstance(several, SeveralSources)
    assert several.uri == ", ".join(uris)
    return several


MIXED = [(first, FORMS[(n + 3) % len(FORMS)], FORMS[(n + 5) % len(FORMS)]) for n, first in enumerate(FORMS)]


@pytest.mark.parametrize("forms", [*MIXED, ("folder", "folder", "folder")])
def test_a_list_over_sources_of_every_kind(place: str, forms: tuple[str, str, str]) -> None:
    with contextlib.closing(open_several(place, forms)) as several:
        utterances = listed(*reversed(PATHS), "id0/s/gone.wav")
        matching = match_utterances(several, utterances)
        assert [utterance for utterance, _ in matching.pairs] == utterances[:-1]
        assert matching.missing == utterances[-1:]
        assert [member.source for _, member in reversed(matching.pairs)] == [0] * 100 + [1] * 39 + [2]
        assert contents_of(several, matching) == MEMBERS
        first, second, third = (source.uri for source in several.sources)
        assert matching.notes == [
            f"{first}: 100 of the 141 listed utterances",
            f"{second}: 39 of the 141 listed utterances",
            f"{second}: the list's paths are found below wav/",
            f"{third}: 1 of the 141 listed utterances",
            f"{third}: the list's paths are found below dev/aac/",
        ]


@pytest.mark.parametrize("forms", MIXED)
def test_all_files_of_several(place: str, forms: tuple[str, str, str]) -> None:
    with contextlib.closing(open_several(place, forms)) as several:
        matching = match_all_files(several)
        assert [utterance for utterance, _ in matching.pairs] == listed(*sorted(MEMBERS))
        assert contents_of(several, matching) == MEMBERS
        assert matching.notes == [
            f"{source.uri}: {len(share)} utterances"
            for source, share in zip(several.sources, SHARES, strict=True)
        ]


def test_members_may_be_asked_for_in_turns(tmp_path: Path) -> None:
    with contextlib.closing(open_several(str(tmp_path), ("tar.gz", "folder", "zip"))) as several:
        pairs = match_utterances(several, listed(*PATHS)).pairs
        # Within a compressed tar forward; from source to source at will.
        order = sorted(range(len(pairs)), key=lambda n: (pairs[n][1].offset, n % 5))
        read = list(several.read_all(pairs[n][1] for n in order))
        assert read == [MEMBERS[PATHS[n]] for n in order]


def test_one_source_alone_is_no_several(tmp_path: Path) -> None:
    uri = store(str(tmp_path), "zip", MEMBERS, "a")
    for uris in (uri, [uri], (uri,)):
        source = open_sources(uris)
        assert not isinstance(source, SeveralSources)
        assert match_utterances(source, listed(*PATHS)).notes == []
        source.close()


@pytest.mark.parametrize("forms", [("folder", "zip"), ("tar", "folder"), ("tar.zst", "zip-parts")])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_an_utterance_in_two_sources_is_refused(tmp_path: Path, forms: tuple[str, str], suffix: str) -> None:
    members = below("", PATHS[:60])
    again = {f"wav/{path[:-3]}{suffix}": MEMBERS[path] for path in PATHS[58:]}
    uris = [store(str(tmp_path), forms[0], members, "a"), store(str(tmp_path), forms[1], again, "b")]
    several = open_sources(uris)
    with pytest.raises(CorpusError) as caught:
        match_utterances(several, listed(*PATHS))
    assert str(caught.value) == (
        f"2 utterances are in more than one source, the first is id2/s/058.wav: in {uris[0]} and in "
        f"{uris[1]}. Nothing says which is meant: leave one of the sources out, or the utterances out of one "
        "of them"
    )
    with pytest.raises(CorpusError) as caught:
        match_all_files(several)
    other_name = "" if suffix == "wav" else " as id2/s/058.flac"
    assert str(caught.value).startswith(
        f"2 utterances are in more than one source, the first is id2/s/058.wav: in {uris[0]} and in "
        f"{uris[1]}{other_name}. Nothing says"
    )
    # Only what is listed counts.
    fine = [path for path in PATHS if path not in PATHS[58:60]]
    assert len(match_utterances(several, listed(*fine)).pairs) == 138


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_source_with_none_of_the_list_is_noted(tmp_path: Path, form: str) -> None:
    uris = [
        store(str(tmp_path), form, below("", PATHS[:100]), "a"),
        store(str(tmp_path), form, {f"other/s/{n}.wav": b"" for n in range(9)}, "b"),
    ]
    several = open_sources(uris)
    notes = match_utterances(several, listed(*PATHS)).notes
    assert notes == [
        f"{uris[0]}: 100 of the 140 listed utterances",
        f"{uris[1]}: 0 of the 140 listed utterances",
    ]
    with pytest.raises(CorpusError) as caught:
        match_utterances(several, listed("no/such/1.wav", "no/such/2.wav"))
    assert str(caught.value).startswith(
        f"none of the 2 listed utterances is in {uris[0]}, {uris[1]} (the first is no/such/1.wav); the list's"
    )


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_two_folders_in_one_source_are_to_be_named(tmp_path: Path, form: str) -> None:
    halves = {**below("dev/", PATHS[:50]), **below("test/", PATHS[50:90])}
    uris = [store(str(tmp_path), form, halves, "a"), store(str(tmp_path), "zip", below("", PATHS[90:]), "b")]
    with pytest.raises(CorpusError) as caught:
        match_utterances(open_sources(uris), listed(*PATHS))
    assert str(caught.value) == (
        f"listed utterances are in {uris[0]} below dev/, test/; instead of {uris[0]} name each of these "
        "folders that is meant as audio of its own"
    )
    if form == "folder":
        folders = [f"{uris[0]}/dev", f"{uris[0]}/test", uris[1]]
        assert len(match_utterances(open_sources(folders), listed(*PATHS)).pairs) == 140


@pytest.mark.parametrize("num_speakers", [3, 30])
def test_a_folder_finds_the_folder_of_the_list_however_many_speakers(
    tmp_path: Path, num_speakers: int
) -> None:
    paths = [f"id{n}/s/1.wav" for n in range(num_speakers)]
    write_files(tmp_path / "a", {f"wav/vox/{path}": b"1" for path in paths[-1:]})
    write_files(tmp_path / "b", {**dict.fromkeys(paths[:-1], b"2"), "loose.wav": b"3"})
    several = open_sources([str(tmp_path / "a"), str(tmp_path / "b")])
    matching = match_utterances(several, listed(*paths, "loose.wav"))
    assert matching.missing == []
    assert f"{tmp_path}/a: the list's paths are found below wav/vox/" in matching.notes
    write_files(tmp_path / "c", {"wav/loose.wav": b"4"})
    assert open_sources(str(tmp_path / "c")).uri == str(tmp_path / "c")
    matching = match_utterances(
        open_sources([str(tmp_path / "a"), str(tmp_path / "c")]), listed(*paths, "loose.wav")
    )
    assert [u.utterance_id for u, _ in matching.pairs] == [paths[-1], "loose.wav"]


def test_which_of_several_does_not_lie_as_speaker_and_file_is_named(tmp_path: Path) -> None:
    good = store(str(tmp_path), "tar", MEMBERS, "a")
    for members, message in (
        ({"notes.txt": b""}, "there are no audio files"),
        ({"a/b/c/d/1.wav": b"", "x/2.wav": b""}, "'a/b/c/d/1.wav' is not speaker/"),
    ):
        bad = store(str(tmp_path), "zip", members, "b")
        with pytest.raises(CorpusError) as caught:
            match_all_files(open_sources([good, bad]))
        assert str(caught.value).startswith(f"{bad}: {message}")


def test_one_of_several_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=f"^{tmp_path}/gone: cannot read: it does not exist"):
        open_sources([store(str(tmp_path), "tar", MEMBERS, "a"), str(tmp_path / "gone")])


@pytest.mark.parametrize(
    ("values", "uris"),
    [
        (["a"], ("a",)),
        (["a b/"], ("a b",)),
        (["/"], ("/",)),
        (["a/", "gs://b/c.zip"], ("a", "gs://b/c.zip")),
        (["gs://b/c.zip; d.tar/;\n e"], ("gs://b/c.zip", "d.tar", "e")),
        (["gs://b/c.zip\r\ngs://b/d_partaa\n", "e_partaa"], ("gs://b/c.zip", "gs://b/d_partaa", "e_partaa")),
    ],
)
def test_values_of_audio(values: list[str], uris: tuple[str, ...]) -> None:
    assert audio_uris(values) == uris


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.zip", "a.zip"),
        ("a.zip", "./a.zip"),
        ("a.zip", "link.zip"),
        ("vox_partaa", "vox_partab"),
        ("vox_part*", "vox_partac"),
        ("gs://b/vox_partaa", "gs://b/vox_part*"),
        ("gs://b/folder/", "gs://b/folder"),
    ],
)
def test_a_source_named_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.zip").symlink_to("a.zip")
    for values in ([first, "other", second], [f"{first};other;{second}"]):
        with pytest.raises(ConfigError, match=r"^--audio names .* which are the same; name it once"):
            audio_uris(values)


@pytest.mark.parametrize("value", [";", "\n", " ; "])
def test_nothing_but_dividers_names_no_source(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^--audio is empty; expected a folder, tar or zip, or several"):
        audio_uris([value])
