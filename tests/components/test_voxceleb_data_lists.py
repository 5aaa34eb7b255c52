"""`prepare` and `copy-subset`: the same list and the same choice, whatever holds the audio."""

import io
import random
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxceleb_data import cli, subset
from voxceleb_data.prepare import prepare
from voxsrc.corpus import Utterance, read_utterance_list
from voxsrc.errors import CorpusError, NotFoundError
from voxsrc.sources import match_utterances, open_source, open_sources

FILES = {
    f"dev/aac/id{speaker:05}/{session}/{file:05}.m4a": f"{speaker} {session} {file}".encode()
    for speaker in (12, 3, 700)
    for session in ("zz", "Aa", "-b")
    for file in range(1, speaker % 5 + 2)
}
CLUTTER = {
    "dev/aac/id00012/zz/._00001.m4a": b"mac",
    "__MACOSX/dev/aac/id00012/zz/00001.m4a": b"mac",
    "dev/aac/id00012/zz/notes.txt": b"text",
    "dev/aac/id00012/zz/00099.m4a": b"",
    "stray.wav": b"wav",
}


def as_folder(path: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return str(path)


def as_zip(path: Path, files: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path.with_suffix(".zip"))


def as_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> str:
    target = path.with_suffix(".tar")
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return str(target)


def as_parts(path: Path, files: dict[str, bytes]) -> str:
    whole = Path(as_zip(path, files)).read_bytes()
    for ending, start in (("aa", 0), ("ab", 700)):
        data = whole[:700] if ending == "aa" else whole[start:]
        path.with_name(f"audio_part{ending}").write_bytes(data)
    return str(path.with_name("audio_part*"))


Holder = Callable[[Path, dict[str, bytes]], str]
HOLDERS: list[Holder] = [as_folder, as_zip, as_tar, as_parts]


@pytest.mark.parametrize("hold", HOLDERS)
def test_every_holder_gives_the_same_list(tmp_path: Path, hold: object) -> None:
    shuffled = list((FILES | CLUTTER).items())
    random.Random(1).shuffle(shuffled)
    audio = hold(tmp_path / "audio", dict(shuffled))  # type: ignore[operator]
    prepared = prepare(audio, str(tmp_path / "list.txt"))
    expected = sorted(path.removeprefix("dev/aac/") for path in FILES)
    lines = (tmp_path / "list.txt").read_text().splitlines()
    assert lines == [f"{path.split('/')[0]} {path}" for path in expected]
    assert prepared.prefix == "dev/aac/"
    assert prepared.ignored == Counter(hidden=2, not_audio=1, empty=1, no_speaker_folder=1)
    assert prepared.summary == f"3 speakers, 9 sessions, {len(FILES)} utterances"
    # Extraction finds every listed file again.
    matching = match_utterances(open_source(audio), read_utterance_list(str(tmp_path / "list.txt")))
    assert {member.path for _, member in matching.pairs} == set(FILES)
    assert matching.missing == []


def test_sessions_are_optional_and_names_may_have_spaces(tmp_path: Path) -> None:
    audio = as_folder(tmp_path / "a", {"anna/1.wav": b"x", "anna/2.wav": b"x", "bo björn/é 3.wav": b"x"})
    prepare(audio, str(tmp_path / "list.txt"))
    listed = read_utterance_list(str(tmp_path / "list.txt"))
    assert [(u.speaker_id, u.utterance_id) for u in listed] == [
        ("anna", "anna/1.wav"),
        ("anna", "anna/2.wav"),
        ("bo björn", "bo björn/é 3.wav"),
    ]


def test_one_speaker_is_asked_about(tmp_path: Path) -> None:
    audio = as_folder(tmp_path / "a", {"anna/mon/1.wav": b"x", "anna/tue/1.wav": b"x"})
    prepared = prepare(audio, str(tmp_path / "list.txt"))
    assert prepared.utterances[0].speaker_id == "anna"
    assert "only one speaker" in prepared.notes[0]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"top.wav": b"x", "a/b/notes.txt": b"x"}, "found: 1 no_speaker_folder, 1 not_audio"),
        ({"a/s/1.wav": b"x", "b/s/t/u/1.wav": b"x"}, r"not speaker/\[session/\]file"),
    ],
)
def test_audio_that_lies_otherwise_is_refused(tmp_path: Path, files: dict[str, bytes], problem: str) -> None:
    with pytest.raises(CorpusError, match=problem):
        prepare(as_folder(tmp_path / "a", files), str(tmp_path / "list.txt"))
    assert not (tmp_path / "list.txt").exists()


def test_missing_audio_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        prepare(str(tmp_path / "nowhere"), str(tmp_path / "list.txt"))


def test_with_trials_only_their_utterances_are_listed_under_their_names(tmp_path: Path) -> None:
    audio = as_zip(tmp_path / "audio", FILES)
    trials = tmp_path / "trials.txt"
    trials.write_text(
        "1 id00012/zz/00001.wav id00012/Aa/00001.wav\n0 id00003/zz/00001.wav id00012/zz/00001.wav\n"
    )
    prepared = prepare(audio, str(tmp_path / "list.txt"), str(trials))
    assert (tmp_path / "list.txt").read_text() == (
        "id00003 id00003/zz/00001.wav\nid00012 id00012/Aa/00001.wav\nid00012 id00012/zz/00001.wav\n"
    )
    assert any(".wav where the file is .m4a" in note for note in prepared.notes)
    trials.write_text(trials.read_text() + "0 id00003/zz/00001.wav id99999/zz/00001.wav\n")
    with pytest.raises(CorpusError, match=r"1 of the 4 utterances.*id99999/zz/00001\.wav"):
        prepare(audio, str(tmp_path / "list.txt"), str(trials))


def test_trial_names_below_a_common_folder_are_kept(tmp_path: Path) -> None:
    audio = as_folder(tmp_path / "a", {"test/a/s/1.wav": b"x", "test/b/s/1.wav": b"x"})
    (tmp_path / "trials.txt").write_text("0 test/a/s/1.wav test/b/s/1.wav\n")
    prepared = prepare(audio, str(tmp_path / "list.txt"), str(tmp_path / "trials.txt"))
    assert prepared.utterances == [
        Utterance("test/a/s/1.wav", "a", "s"),
        Utterance("test/b/s/1.wav", "b", "s"),
    ]


SHARES = [dict(list(FILES.items())[:9]), dict(list(FILES.items())[9:15]), dict(list(FILES.items())[15:])]


@pytest.mark.parametrize("hold", HOLDERS)
def test_several_sources_give_the_list_of_one(tmp_path: Path, hold: Holder) -> None:
    """As VoxCeleb1's two parts; each may have its files below another folder."""
    uris = [hold(tmp_path / "a", SHARES[0])]
    uris.append(as_zip(tmp_path / "b", {path.removeprefix("dev/aac/"): d for path, d in SHARES[1].items()}))
    uris.append(as_folder(tmp_path / "c", {**SHARES[2], **CLUTTER}))
    prepare(as_zip(tmp_path / "whole", FILES), str(tmp_path / "whole.txt"))
    prepared = prepare(uris, str(tmp_path / "list.txt"))
    assert (tmp_path / "list.txt").read_text() == (tmp_path / "whole.txt").read_text()
    assert prepared.summary == f"3 speakers, 9 sessions, {len(FILES)} utterances"
    assert (prepared.prefix, prepared.ignored["empty"]) == ("", 1)
    assert [note.partition(": ")[0] for note in prepared.notes if " speakers, " in note] == uris
    matching = match_utterances(open_sources(uris), read_utterance_list(str(tmp_path / "list.txt")))
    assert (len(matching.pairs), matching.missing) == (len(FILES), [])


@pytest.mark.parametrize("suffix", ["m4a", "wav"])
def test_an_utterance_in_two_sources_is_refused(tmp_path: Path, suffix: str) -> None:
    path = next(iter(SHARES[0]))
    again = {**SHARES[1], f"{path[:-3]}{suffix}": b"x"}
    uris = [as_tar(tmp_path / "a", SHARES[0]), as_folder(tmp_path / "b", again)]
    with pytest.raises(CorpusError) as caught:
        prepare(uris, str(tmp_path / "list.txt"))
    name = path.removeprefix("dev/aac/")
    other_name = "" if suffix == "m4a" else f" as {name[:-3]}{suffix}"
    assert str(caught.value).startswith(
        f"1 utterances are in more than one source, the first is {name}: in {uris[0]} and in "
        f"{uris[1]}{other_name}. Nothing says"
    )
    assert not (tmp_path / "list.txt").exists()


def test_trials_over_several_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """E and H need both parts of VoxCeleb1."""
    uris = [as_zip(tmp_path / "a", SHARES[0]), as_folder(tmp_path / "b", SHARES[1])]
    first, second, third = (next(iter(share)).removeprefix("dev/aac/") for share in SHARES)
    trials = tmp_path / "trials.txt"
    trials.write_text(f"0 {first} {second}\n")
    command = ["prepare", "--output", str(tmp_path / "list.txt"), "--trials", str(trials)]
    for audio in (["--audio", uris[0], "--audio", uris[1]], ["--audio", f"{uris[0]}; {uris[1]}/"]):
        assert cli.main([*command, *audio]) == 0
        assert "2 speakers, 2 sessions, 2 utterances\n" in capsys.readouterr().out
        listed = read_utterance_list(str(tmp_path / "list.txt"))
        assert sorted(u.utterance_id for u in listed) == sorted([first, second])
    trials.write_text(f"0 {first} {second}\n1 {first} {third}\n")
    assert cli.main([*command, "--audio", uris[0], "--audio", uris[1]]) == 1
    assert (
        f"1 of the 3 utterances in {trials} are not in {uris[0]}, {uris[1]} ({third}, …); VoxCeleb1-O needs "
        "vox1-test, E and H need vox1-dev and vox1-test: name both as --audio"
    ) in capsys.readouterr().err
    assert cli.main([*command, "--audio", uris[0], "--audio", uris[0]]) == 1
    assert "--audio names" in capsys.readouterr().err


def corpus_of(sizes: list[list[int]]) -> list[Utterance]:
    """`sizes[i][j]` utterances in session j of speaker i."""
    return [
        Utterance(f"spk{i}/s{j}/{k}.wav", f"spk{i}", f"s{j}")
        for i, sessions in enumerate(sizes)
        for j, size in enumerate(sessions)
        for k in range(size)
    ]


@given(
    st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=5), min_size=4, max_size=8),
    st.integers(0, 99),
    st.randoms(use_true_random=False),
)
def test_the_choice_is_the_same_for_any_order_and_spread_over_sessions(
    sizes: list[list[int]], seed: int, chance: random.Random
) -> None:
    utterances = corpus_of(sizes)
    totals = [sum(sessions) for sessions in sizes]
    num_utterances = sorted(totals)[len(totals) // 2]
    chosen, too_few = subset.choose(utterances, num_speakers=2, num_utterances=num_utterances, seed=seed)
    chance.shuffle(utterances)
    again, _ = subset.choose(utterances, num_speakers=2, num_utterances=num_utterances, seed=seed)
    assert chosen == again
    assert too_few == [f"spk{i}" for i, total in enumerate(totals) if total < num_utterances]
    per_speaker = Counter(u.speaker_id for u in chosen)
    assert list(per_speaker.values()) == [num_utterances] * 2
    for speaker in per_speaker:
        taken = Counter(u.session_id for u in chosen if u.speaker_id == speaker)
        available = sizes[int(speaker.removeprefix("spk"))]
        # As even as the sessions allow: one is fuller than another only if that one is used up.
        for j, size in enumerate(available):
            assert taken[f"s{j}"] >= min(size, max(taken.values()) - 1)


def test_another_seed_gives_another_choice() -> None:
    utterances = corpus_of([[3, 3, 3]] * 20)
    choices = {
        tuple(subset.choose(utterances, num_speakers=5, num_utterances=4, seed=seed)[0]) for seed in range(5)
    }
    assert len(choices) == 5


@pytest.mark.parametrize("hold", HOLDERS)
def test_a_subset_is_copied_with_its_list(tmp_path: Path, hold: object) -> None:
    audio = hold(tmp_path / "audio", FILES)  # type: ignore[operator]
    prepare(audio, str(tmp_path / "all.txt"))
    listed = (tmp_path / "all.txt").read_text().replace(".m4a", ".wav")
    (tmp_path / "all.txt").write_text(listed)
    output = tmp_path / "small"
    copied = subset.copy_subset(
        audio, str(tmp_path / "all.txt"), str(output), num_speakers=2, num_utterances=6, seed=7
    )
    assert copied.too_few == ["id00700"]
    relative = {str(path.relative_to(output)) for path in output.rglob("*.m4a")}
    assert relative == {u.utterance_id for u in read_utterance_list(str(output / "list.txt"))}
    assert Counter(path.split("/")[0] for path in relative) == {"id00012": 6, "id00003": 6}
    for path in relative:
        assert (output / path).read_bytes() == FILES[f"dev/aac/{path}"]
    assert copied.num_bytes == sum(len(FILES[f"dev/aac/{path}"]) for path in relative)


def test_too_much_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"1 of 2 speakers have 5 utterances or more, 2 .* lower --speakers"
    ):
        subset.choose(corpus_of([[5], [4]]), num_speakers=2, num_utterances=5, seed=0)


def test_a_listed_file_that_is_gone_is_named_before_the_list_is_written(tmp_path: Path) -> None:
    audio = as_folder(tmp_path / "a", {"a/s/1.wav": b"x", "b/s/1.wav": b"x"})
    (tmp_path / "l.txt").write_text("a a/s/1.wav\nb b/s/2.wav\n")
    with pytest.raises(CorpusError, match=r"1 of 2 chosen utterances are not in .*b/s/2\.wav"):
        subset.copy_subset(
            audio,
            str(tmp_path / "l.txt"),
            str(tmp_path / "out"),
            num_speakers=2,
            num_utterances=1,
            seed=0,
        )
    assert not (tmp_path / "out").exists()


def test_a_damaged_member_stops_the_copy(tmp_path: Path) -> None:
    audio = Path(as_zip(tmp_path / "audio", FILES))
    content = audio.read_bytes()
    audio.write_bytes(content.replace(b"3 zz 1", b"3 zz 9"))
    prepare(str(audio), str(tmp_path / "l.txt"))
    with pytest.raises(CorpusError, match=r"zz/00001\.m4a cannot be read \(damaged"):
        subset.copy_subset(
            str(audio),
            str(tmp_path / "l.txt"),
            str(tmp_path / "o"),
            num_speakers=1,
            num_utterances=12,
            seed=0,
        )
    assert not (tmp_path / "o" / "list.txt").exists()
