"""Noise and music, whose files lie in no speakers' folders."""

from pathlib import Path

import pytest

from audio_files import noise, wav
from commands import Command
from corpora import store_corpus
from voxsrc.feature_set import FeatureSet, read_manifest

FILES = {
    "alien-device.wav": wav(noise(0.3, seed=1)),
    "rain.wav": wav(noise(0.3, seed=2)),
    "deep/er/than/speech/bell.wav": wav(noise(0.3, seed=3)),
}


@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
def test_every_file_at_any_depth_is_an_utterance_of_the_one_speaker(
    tmp_path: Path, feature_extractor: Command, form: str
) -> None:
    audio = store_corpus(str(tmp_path), form, FILES)
    arguments = ["run", "--audio", audio, "--one-speaker", "noise", "--output", tmp_path / "set"]
    outcome = feature_extractor(*arguments, "--num-workers", 1)
    assert outcome.code == 0
    assert "note" not in outcome.output
    index = FeatureSet.open(str(tmp_path / "set")).index
    assert dict(zip(index.utterance_ids, index.session_ids, strict=True)) == {
        "alien-device.wav": "", "rain.wav": "", "deep/er/than/speech/bell.wav": "speech",
    }  # fmt: skip
    assert set(index.speaker_ids) == {"noise"}
    assert read_manifest(str(tmp_path / "set")).made_from["one_speaker"] == "noise"


def test_planned_and_continued_it_stays_that_speaker(tmp_path: Path, feature_extractor: Command) -> None:
    audio = store_corpus(str(tmp_path), "folder", FILES)
    what = ["--audio", audio, "--one-speaker", "noise", "--output", tmp_path / "set", "--num-shards", 3]
    assert feature_extractor("plan", *what).code == 0
    for part in ("0/2", "1/2"):
        extracted = feature_extractor("extract", "--output", tmp_path / "set", "--part", part)
        assert extracted.code == 0
    outcome = feature_extractor("run", *what)
    assert "continuing the extraction" in outcome.output
    assert set(FeatureSet.open(str(tmp_path / "set")).index.speaker_ids) == {"noise"}
    assert "is finished already" in feature_extractor("run", *what).output
    for other, said in (("music", "'music'"), ("", "None")):
        outcome = feature_extractor("run", *what, "--one-speaker", other)
        assert f"one_speaker is 'noise', now {said} is asked for" in outcome.error


def test_without_it_files_in_no_folder_are_an_error_that_names_it(
    tmp_path: Path, feature_extractor: Command
) -> None:
    audio = store_corpus(str(tmp_path), "folder", FILES)
    outcome = feature_extractor("run", "--audio", audio, "--output", tmp_path / "set")
    assert outcome.error == (
        "'alien-device.wav' is not speaker/[session/]file below the top; give a list instead. Of noise and "
        "music, where speakers mean nothing, feature-extractor takes all files with --one-speaker NAME"
    )


def test_no_files_at_all(tmp_path: Path, feature_extractor: Command) -> None:
    (tmp_path / "empty").mkdir()
    where = ["--audio", tmp_path / "empty", "--output", tmp_path / "set"]
    assert feature_extractor("run", *where, "--one-speaker", "noise").error == "there are no audio files"
    assert (
        feature_extractor("run", *where).error == "there are no audio files; expected speaker/[session/]file"
    )


def test_two_sources_with_the_same_file_are_refused(tmp_path: Path, feature_extractor: Command) -> None:
    audio = [store_corpus(str(tmp_path / name), "folder", FILES) for name in "ab"]
    where = ["--audio", audio[0], "--audio", audio[1], "--output", tmp_path / "set"]
    outcome = feature_extractor("run", *where, "--one-speaker", "noise")
    assert outcome.error.startswith("3 utterances are in more than one source")


def test_a_list_names_the_speakers_itself(tmp_path: Path, feature_extractor: Command) -> None:
    outcome = feature_extractor(
        "run", "--audio", tmp_path, "--list", "l.txt", "--one-speaker", "noise", "--output", tmp_path / "set"
    )
    assert outcome.error == (
        "--one-speaker noise and --list l.txt, which names the speakers: give one of the two"
    )


def test_sets_of_speech_say_nothing_of_it(finished: Path) -> None:
    assert "one_speaker" not in read_manifest(str(finished)).made_from
