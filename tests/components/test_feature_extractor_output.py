"""Where a feature set may be made."""

from pathlib import Path

import pytest

from commands import Command, contents, extractor_options
from corpora import Corpus, write_corpus
from voxsrc import storage


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("below", ["", "/sub/set"])
def test_an_output_that_is_a_file_is_refused_before_the_audio_is_looked_at(
    corpus: Corpus, tmp_path: Path, feature_extractor: Command, command: str, below: str
) -> None:
    file = tmp_path / "my list.txt"
    file.write_text("precious")
    outcome = feature_extractor(command, *extractor_options(corpus, Path(f"{file}{below}")))
    assert outcome.code == 1
    assert outcome.error.startswith(f"--output {file}{below}")
    assert outcome.error.endswith(" is a file; expected a folder, which need not be there yet")
    assert "looking for the audio" not in outcome.output
    assert file.read_text() == "precious"


def test_an_output_that_is_the_audio_is_refused(
    tmp_path: Path, feature_extractor: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path, {"a/s/1.wav": b"", "b/s/1.wav": b""})
    (tmp_path / "link").symlink_to("audio")
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    for output in (corpus.audio, "audio/", "link", f"file://{corpus.audio}"):
        outcome = feature_extractor("run", "--audio", other, "--audio", corpus.audio, "--output", output)
        assert outcome.code == 1
        assert outcome.error == (
            f"--output {output} is --audio, too: the feature set would lie among the recordings; give it a "
            "folder of its own"
        )
    assert contents(tmp_path) == before


def test_a_bucket_that_is_the_audio_is_refused(bucket: str, feature_extractor: Command) -> None:
    storage.write_bytes(f"{bucket}/audio/a/s/1.wav", b"")
    outcome = feature_extractor(
        "plan", "--audio", f"{bucket}/audio/", "--output", f"{bucket}/audio", "--num-shards", 1
    )
    assert "the feature set would lie among the recordings" in outcome.error
    assert [info.uri for info in storage.list_files(bucket)] == [f"{bucket}/audio/a/s/1.wav"]


def test_an_extraction_begun_among_the_recordings_is_continued(
    corpus: Corpus, begun: Path, feature_extractor: Command
) -> None:
    """An earlier version allowed it."""
    (begun / "manifest.json").unlink()
    plan = begun / "plan" / "plan.json"
    plan.write_text(plan.read_text().replace(corpus.audio, str(begun)))
    arguments = ["--audio", begun, "--list", corpus.list, "--output", begun, "--num-shards", 6]
    outcome = feature_extractor("run", *arguments, "--num-workers", 1)
    assert f"continuing the extraction in {begun}" in outcome.output
    assert "among the recordings" not in outcome.errors
