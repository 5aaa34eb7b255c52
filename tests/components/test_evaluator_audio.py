"""Straight from audio, and short pieces of it for the report's players."""

import base64
import dataclasses
import io
import itertools
import json
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import soundfile
import torch

from audio_files import m4a, noise, wav
from corpora import archive_bytes, write_files
from evaluations import Evaluations, Trained, results, write_trials
from evaluator.clips import CLIP_S, Clips
from evaluator.report import write_report
from report_data import small_report
from voxsrc import storage
from voxsrc.errors import CorpusError
from voxsrc.features.scipy_log_mel import LogMelExtractor
from voxsrc.models.stored import load_model

NAMES = [
    f"id{speaker}/s{session}/{take}.wav" for speaker in range(4) for session in range(2) for take in range(2)
]


def speech(name: str, rate_hz: int = 16_000) -> np.ndarray:
    """Noise whose spectrum tells the speaker, (W,) float32."""
    seed = int("".join(filter(str.isdigit, name)))
    samples = noise(0.4 + 0.01 * (seed % 7), rate_hz, seed=seed)
    speaker = int(name[2])
    return np.asarray(samples + 0.5 * np.roll(samples, 3 * speaker + 1), np.float32) / 2


@pytest.fixture
def recordings(tmp_path: Path) -> dict[str, bytes]:
    return {name: wav(speech(name)) for name in NAMES}


@pytest.fixture
def audio(tmp_path: Path, recordings: dict[str, bytes]) -> Path:
    write_files(tmp_path / "audio", recordings)
    return tmp_path / "audio"


@pytest.fixture
def arguments(trained: Trained, audio: Path, tmp_path: Path) -> list[str | Path]:
    trials = write_trials(tmp_path / "trials.txt", NAMES)
    return ["--model", trained.model, "--trials", trials, "--audio", audio]


def scores_of(output: Path) -> list[float]:
    return [float(line.split()[0]) for line in (output / "scores.txt").read_text().splitlines()]


def test_the_features_are_made_on_the_way(
    arguments: list[str | Path], trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    metrics = evaluations.metrics(tmp_path / "output", *arguments)
    assert metrics["warnings"] == []
    assert metrics["num_speakers"] == 4
    assert metrics["eer_interval"] is not None
    assert metrics["features"] == str(tmp_path / "audio")
    model = load_model(trained.model)
    extract = LogMelExtractor(model.description.spec)
    first, second = (tmp_path / "output" / "scores.txt").read_text().split()[1:3]
    units = []
    for name in (first, second):
        waveform, _ = soundfile.read(tmp_path / "audio" / name, dtype="float32")
        vector = model.encoder(torch.from_numpy(extract(waveform)).T[None])[0].detach().double().numpy()
        units.append(vector / np.linalg.norm(vector))
    assert scores_of(tmp_path / "output")[0] == pytest.approx(float(units[0] @ units[1]), abs=1e-6)


def test_run_again_it_computes_nothing_and_writes_the_same(
    arguments: list[str | Path], evaluations: Evaluations, tmp_path: Path
) -> None:
    evaluations.metrics(tmp_path / "output", *arguments)
    before = results(tmp_path / "output")
    evaluations.num_batches = 0
    evaluations.metrics(tmp_path / "output", *arguments)
    assert evaluations.num_batches == 0
    assert results(tmp_path / "output") == before


@pytest.mark.parametrize("form", ["tar.gz", "zip"])
def test_an_archive_gives_the_same_scores(
    form: str,
    arguments: list[str | Path],
    recordings: dict[str, bytes],
    evaluations: Evaluations,
    tmp_path: Path,
) -> None:
    archive = tmp_path / f"corpus.{form}"
    archive.write_bytes(archive_bytes(form, {f"wav/{path}": content for path, content in recordings.items()}))
    evaluations.metrics(tmp_path / "folder", *arguments)
    evaluations.metrics(tmp_path / "archive", *arguments[:-1], archive)
    assert scores_of(tmp_path / "archive") == pytest.approx(scores_of(tmp_path / "folder"), abs=1e-6)


def test_several_sources_give_the_same_scores(
    arguments: list[str | Path], recordings: dict[str, bytes], evaluations: Evaluations, tmp_path: Path
) -> None:
    archive, folder = tmp_path / "first.tar.gz", tmp_path / "second"
    archive.write_bytes(archive_bytes("tar.gz", {f"wav/{name}": recordings[name] for name in NAMES[::2]}))
    write_files(folder, {name: recordings[name] for name in NAMES[1::2]})
    evaluations.whole = True
    evaluations.metrics(tmp_path / "one", *arguments)
    for output, several in (("apart", [archive, "--audio", folder]), ("together", [f"{archive}; {folder}"])):
        metrics = evaluations.metrics(tmp_path / output, *arguments[:-1], *several)
        assert metrics["features"] == f"{archive}, {folder}"
        assert scores_of(tmp_path / output) == pytest.approx(scores_of(tmp_path / "one"), abs=1e-6)
        players = [
            (tmp_path / folder / "report.html").read_text().count("data:audio/flac;base64,")
            for folder in ("one", output)
        ]
        assert players[0] == players[1] > 0


def test_audio_at_8_khz_is_warned_of(
    arguments: list[str | Path], audio: Path, evaluations: Evaluations, tmp_path: Path
) -> None:
    for name in NAMES[:3]:
        (audio / name).write_bytes(wav(speech(name, 8_000), 8_000))
    metrics = evaluations.metrics(tmp_path / "output", *arguments)
    assert metrics["warnings"] == [
        "3 utterances resampled from 8000 to 16000 Hz; they have no energy above 4000 Hz, the features reach "
        "7600 Hz: scores with them are unreliable"
    ]
    assert evaluations.reports[0].warnings == metrics["warnings"]
    # Kept embeddings are warned of as well, though nothing is decoded again.
    evaluations.num_batches = 0
    assert evaluations.metrics(tmp_path / "output", *arguments) == metrics
    assert evaluations.num_batches == 0


def test_missing_files_and_files_that_cannot_be_used_are_all_listed(
    arguments: list[str | Path], audio: Path, evaluations: Evaluations, tmp_path: Path
) -> None:
    (audio / NAMES[3]).unlink()
    missing = evaluations(*arguments, "--output", tmp_path / "output")
    assert missing.code == 1
    listed = tmp_path / "output" / "unusable_utterances.txt"
    assert f"All 1 are listed in {listed}" in missing.errors
    assert listed.read_text() == f"{NAMES[3]}\tmissing: no such file\n"

    (audio / NAMES[3]).write_bytes(b"no audio at all")
    (audio / NAMES[5]).write_bytes(wav(np.zeros(8_000, np.float32)))
    unusable = evaluations(*arguments, "--output", tmp_path / "output")
    assert unusable.code == 1
    assert "2 of 16 utterances" in unusable.error
    reasons = dict(line.split("\t") for line in listed.read_text().splitlines())
    assert reasons[NAMES[3]].startswith("undecodable: ")
    assert reasons[NAMES[5]].startswith("silent: ")
    assert reasons.keys() == {NAMES[3], NAMES[5]}


def test_paths_that_tell_no_speakers(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    names = [f"{number:05d}.wav" for number in range(6)]
    write_files(tmp_path / "flat", {name: wav(noise(0.4, seed=place)) for place, name in enumerate(names)})
    trials = tmp_path / "trials.txt"
    pairs = itertools.pairwise(names)
    trials.write_text("".join(f"{place % 2} {a} {b}\n" for place, (a, b) in enumerate(pairs)))
    metrics = evaluations.metrics(
        tmp_path / "output", "--model", trained.model, "--trials", trials, "--audio", tmp_path / "flat"
    )
    assert metrics["eer_interval"] is None
    assert metrics["num_speakers"] is None
    (warning,) = metrics["warnings"]
    assert warning.startswith("the speakers are unknown, so there are no intervals")
    (report,) = evaluations.reports
    assert report.speakers is None
    assert [condition.name for condition in report.conditions] == ["duration of the shorter utterance (s)"]


def test_folders_that_are_no_speakers_by_the_labels(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    """Anonymous parts such as part0/, part1/ look like speakers; the labels say that they are not."""
    names = [f"part{number % 2}/{number:05d}.wav" for number in range(6)]
    write_files(tmp_path / "parts", {name: wav(noise(0.4, seed=place)) for place, name in enumerate(names)})
    trials = tmp_path / "trials.txt"
    pairs = itertools.pairwise(names)
    trials.write_text("".join(f"{place % 2} {a} {b}\n" for place, (a, b) in enumerate(pairs)))
    metrics = evaluations.metrics(
        tmp_path / "output", "--model", trained.model, "--trials", trials, "--audio", tmp_path / "parts"
    )
    assert metrics["eer_interval"] is None
    (warning,) = metrics["warnings"]
    assert "2 labels contradict the speakers" in warning
    assert "by the paths, but its label says otherwise" in warning


def test_features_of_resampled_audio_are_warned_of(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    features = tmp_path / "resampled"
    shutil.copytree(trained.test, features)
    manifest = json.loads((features / "manifest.json").read_text())
    manifest["counts"]["resampled_utterances"] = 7
    (features / "manifest.json").write_text(json.dumps(manifest))
    arguments = ["--model", trained.model, "--trials", trained.trials, "--features", features]
    (warning,) = evaluations.metrics(tmp_path / "output", *arguments)["warnings"]
    assert warning.startswith("7 of ")
    assert "had another sample rate than 16000 Hz" in warning


class TestClips:
    """Players of the report."""

    def test_the_beginning_as_flac(self, tmp_path: Path) -> None:
        long = noise(CLIP_S + 1, 8_000)
        write_files(tmp_path, {"a/x.wav": wav(long, 8_000), "a/y.m4a": m4a(noise(0.5))})
        with Clips(str(tmp_path), ["a/x.wav", "a/y.wav"]) as clips:
            found = clips(["a/x.wav", "a/y.wav"])
        samples, rate_hz = soundfile.read(io.BytesIO(found["a/x.wav"]))
        assert rate_hz == 16_000
        assert samples.shape == (CLIP_S * 16_000,)
        np.testing.assert_allclose(samples[::2][:1000], long[:1000], atol=0.02)
        assert soundfile.info(io.BytesIO(found["a/y.wav"])).format == "FLAC"

    def test_no_audio_no_clips(self) -> None:
        with Clips((), ["a/x.wav"]) as clips:
            assert clips(["a/x.wav"]) == {}

    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (Path.unlink, "the audio does not have it"),
            (lambda path: path.write_bytes(b"nothing"), "undecodable"),
            (lambda path: path.write_bytes(b""), "empty"),
        ],
    )
    def test_a_file_that_is_missing_or_cannot_be_used_has_no_player(
        self,
        spoil: Callable[[Path], object],
        reason: str,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        write_files(tmp_path, {"a/x.wav": wav(noise(0.4)), "a/y.wav": wav(noise(0.4))})
        spoil(tmp_path / "a/x.wav")
        with caplog.at_level(logging.WARNING), Clips(str(tmp_path), ["a/x.wav", "a/y.wav"]) as clips:
            assert list(clips(["a/x.wav", "a/y.wav"])) == ["a/y.wav"]
        (message,) = caplog.messages
        assert re.match(f"no player for a/x.wav: {reason}", message)

    @pytest.mark.parametrize("form", ["tar.gz", "tar.zst"])
    def test_a_report_reads_an_archive_once(
        self, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever the order of its worst errors; a compressed archive is opened anew for a step back."""
        data = small_report(num_trials=60, conditions=[])
        names = sorted({*data.enrollments, *data.tests})
        members = {name: wav(noise(0.2, seed=place)) for place, name in enumerate(names)}
        (tmp_path / f"audio.{form}").write_bytes(archive_bytes(form, members))
        opened: list[object] = []
        open_binary = storage.open_binary

        def counting(uris: Sequence[str]) -> BinaryIO:
            opened.append(uris)
            return open_binary(uris)

        with Clips(str(tmp_path / f"audio.{form}"), names) as clips:
            monkeypatch.setattr(storage, "open_binary", counting)
            write_report(str(tmp_path), dataclasses.replace(data, clips=clips))
            assert len(opened) == 1
            backwards = clips(names[::-1])
            assert len(opened) == 2
        assert set(backwards) == set(names)
        assert len(set(backwards.values())) == len(names)
        text = (tmp_path / "report.html").read_text()
        found = re.findall(r'src="data:audio/flac;base64,([^"]*)" aria-label="[^"]*: ([^"]*)"', text)
        assert len(found) >= 2
        assert all(base64.b64decode(content) == backwards[name] for content, name in found)

    def test_names_of_one_file_share_its_clip(self, tmp_path: Path) -> None:
        (tmp_path / "audio.tar.gz").write_bytes(archive_bytes("tar.gz", {"a/x.m4a": m4a(noise(0.2))}))
        names = ["a/x.wav", "a/x.m4a"]
        with Clips(str(tmp_path / "audio.tar.gz"), names) as clips:
            found = clips(names)
        assert set(found) == set(names)
        assert len(set(found.values())) == 1

    def test_audio_of_something_else_is_an_error(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"b/z.wav": wav(noise(0.4))})
        with pytest.raises(CorpusError, match=r"none of the first 1 listed utterances"):
            Clips(str(tmp_path), ["a/x.wav"])

    def test_the_report_asks_for_them(
        self, arguments: list[str | Path], evaluations: Evaluations, tmp_path: Path
    ) -> None:
        evaluations.whole = True
        evaluations.metrics(tmp_path / "output", *arguments)
        assert "data:audio/flac;base64," in (tmp_path / "output" / "report.html").read_text()
