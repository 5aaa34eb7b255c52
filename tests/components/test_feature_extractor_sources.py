from pathlib import Path

import numpy as np
import pytest

from audio_files import m4a, noise, wav
from commands import Command
from corpora import FORMS, store_corpus, tar_bytes, write_corpus
from voxsrc.feature_set import FeatureSet

MEMBERS = {
    f"id{speaker}/s {session}/ä {number}.m4a": m4a(noise(0.3, seed=10 * speaker + 2 * session + number))
    for speaker in range(2)
    for session in range(2)
    for number in range(2)
}
IN_ARCHIVE = {f"dev/aac/{path}": content for path, content in MEMBERS.items()}


def features_of(output: Path) -> dict[str, np.ndarray]:
    features = FeatureSet.open(str(output))
    return {utterance_id: features.read(utterance_id) for utterance_id in features.index.utterance_ids}


def assert_equal(features: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert features.keys() == expected.keys()
    for utterance_id, values in expected.items():
        assert np.array_equal(features[utterance_id], values)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_features_from_every_source(
    place: str, form: str, tmp_path: Path, feature_extractor: Command
) -> None:
    plain = write_corpus(tmp_path / "plain", MEMBERS)
    arguments = ["--num-shards", "3", "--num-workers", "1"]
    assert (
        feature_extractor("run", "--audio", plain.audio, "--output", tmp_path / "expected", *arguments).code
        == 0
    )
    expected = features_of(tmp_path / "expected")
    assert list(expected) == sorted(MEMBERS)

    audio = store_corpus(place, form, IN_ARCHIVE)
    outcome = feature_extractor("run", "--audio", audio, "--output", tmp_path / "unlisted", *arguments)
    assert outcome.code == 0
    assert_equal(features_of(tmp_path / "unlisted"), expected)

    list_file = tmp_path / "list.txt"
    list_file.write_text("".join(f"{path[:3]} {path[:-4]}.wav\n" for path in reversed(MEMBERS)))
    listed = ["--audio", audio, "--list", list_file, "--output", tmp_path / "listed", *arguments]
    outcome = feature_extractor("run", *listed)
    assert outcome.output.splitlines()[1:3] == [
        "note: the list's paths are found below dev/aac/",
        "note: the list says .wav where the file is .m4a: 8 utterances matched by stem",
    ]
    assert_equal(
        features_of(tmp_path / "listed"),
        {f"{path[:-4]}.wav": values for path, values in expected.items()},
    )


def test_two_workers_share_a_compressed_tar(tmp_path: Path, feature_extractor: Command) -> None:
    (tmp_path / "a.tgz").write_bytes(tar_bytes(MEMBERS, "gz"))
    made = []
    for num_workers in (1, 2):
        output = tmp_path / f"by {num_workers}"
        arguments = ["--audio", tmp_path / "a.tgz", "--output", output, "--num-shards", 4]
        assert feature_extractor("run", *arguments, "--num-workers", num_workers).code == 0
        made.append({path.name: path.read_bytes() for path in output.iterdir() if path.is_file()})
    assert made[0] == made[1]


def test_a_folder_without_a_list_or_sessions(tmp_path: Path, feature_extractor: Command) -> None:
    corpus = write_corpus(
        tmp_path, {f"{name}/{n}.wav": wav(noise(0.3, seed=n)) for name in "ab" for n in (1, 2)}
    )
    output = tmp_path / "set"
    assert feature_extractor("run", "--audio", corpus.audio, "--output", output, "--num-workers", 1).code == 0
    index = FeatureSet.open(str(output)).index
    assert index.utterance_ids == ["a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav"]
    assert index.speaker_ids == index.session_ids == ["a", "a", "b", "b"]
