"""The audio that is measured on: real utterances as they are, and copies in other forms made of them."""

import io
import random
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle, groupby, islice
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile
from numpy.typing import NDArray

from voxsrc.audio import decode
from voxsrc.corpus import Utterance, read_utterance_list, session_of, write_utterance_list

Float32Array = NDArray[np.float32]

SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True)
class Audio:
    """Files to extract features from.

    Attributes:
        root: Folder or archive.
        list_file: Utterance list; None for all of an archive.
        utterances: What is listed.
        seconds: Duration of all.
    """

    root: Path
    list_file: Path | None
    utterances: list[Utterance]
    seconds: float

    @property
    def files(self) -> list[Path]:
        """The files of a folder, in the list's order."""
        return [self.root / utterance.utterance_id for utterance in self.utterances]


def choose(root: Path, list_file: Path, minutes: float, scratch: Path) -> tuple[Audio, list[Float32Array]]:
    """Utterances drawn at random from a list until they last `minutes`, and their waveforms."""
    listed = read_utterance_list(str(list_file))
    order = list(range(len(listed)))
    random.Random(0).shuffle(order)
    waveforms: dict[int, Float32Array] = {}
    num_samples = 0
    for position in order:
        if num_samples >= 60 * minutes * SAMPLE_RATE_HZ:
            break
        content = (root / listed[position].utterance_id).read_bytes()
        waveforms[position] = decode(content, sample_rate_hz=SAMPLE_RATE_HZ).waveform
        num_samples += len(waveforms[position])
    chosen = sorted(waveforms)
    utterances = [listed[position] for position in chosen]
    audio = _listed(root, utterances, num_samples / SAMPLE_RATE_HZ, scratch / "chosen.txt")
    return audio, [waveforms[position] for position in chosen]


def as_wav(audio: Audio, waveforms: Iterable[Float32Array], folder: Path) -> Audio:
    """The same utterances as 16 kHz PCM16 wav files."""
    utterances = []
    for utterance, waveform in zip(audio.utterances, waveforms, strict=True):
        path = str(PurePosixPath(utterance.utterance_id).with_suffix(".wav"))
        _write_wav(folder / path, waveform)
        utterances.append(Utterance(path, utterance.speaker_id, utterance.session_id))
    return _listed(folder, utterances, audio.seconds, folder / "list.txt")


def joined(audio: Audio, waveforms: Iterable[Float32Array], at_least_s: float, folder: Path) -> Audio:
    """Utterances of one speaker joined to files of `at_least_s`, as 64 kbit/s AAC: VoxCeleb2's form.

    Needs the program ffmpeg; what is left of a speaker at the end is dropped.
    """
    utterances: list[Utterance] = []
    num_samples = 0
    pairs = zip(audio.utterances, waveforms, strict=True)
    for speaker, group in groupby(pairs, key=lambda pair: pair[0].speaker_id):
        pending: list[Float32Array] = []
        for _, waveform in group:
            pending.append(waveform)
            length = sum(map(len, pending))
            if length >= at_least_s * SAMPLE_RATE_HZ:
                path = f"{speaker}/joined/{len(utterances):06d}.m4a"
                _write_aac(folder / path, np.concatenate(pending))
                utterances.append(Utterance(path, speaker, session_of(path)))
                num_samples += length
                pending = []
    return _listed(folder, utterances, num_samples / SAMPLE_RATE_HZ, folder / "list.txt")


def repeated(audio: Audio, hours: float, folder: Path) -> Audio:
    """The same files under so many names (links) that they last `hours`."""
    folder.mkdir()
    num_copies = max(1, round(3600 * hours / audio.seconds))
    utterances = []
    for copy in range(num_copies):
        name = f"copy{copy:04d}"
        (folder / name).symlink_to(audio.root.resolve(), target_is_directory=True)
        utterances += [
            Utterance(f"{name}/{u.utterance_id}", u.speaker_id, u.session_id) for u in audio.utterances
        ]
    return _listed(folder, utterances, num_copies * audio.seconds, folder / "list.txt")


def as_tar(audio: Audio, durations_s: Iterable[float], num_utterances: int, path: Path) -> Audio:
    """The same files over and over in one tar, `num_utterances` in all, as speaker/session/file."""
    utterances, seconds = [], 0.0
    contents = [file.read_bytes() for file in audio.files]
    sources = zip(audio.utterances, contents, durations_s, strict=True)
    with tarfile.open(path, "w") as archive:
        for number, (utterance, content, duration_s) in enumerate(islice(cycle(sources), num_utterances)):
            suffix = PurePosixPath(utterance.utterance_id).suffix
            name = f"{utterance.speaker_id}/{utterance.session_id or 'session'}/{number:06d}{suffix}"
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            utterances.append(Utterance(name, utterance.speaker_id, session_of(name)))
            seconds += duration_s
    return Audio(path, None, utterances, seconds)


def _listed(root: Path, utterances: list[Utterance], seconds: float, list_file: Path) -> Audio:
    write_utterance_list(str(list_file), utterances)
    return Audio(root, list_file, utterances, seconds)


def _write_wav(path: Path, waveform: Float32Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, SAMPLE_RATE_HZ, subtype="PCM_16")


def _write_aac(path: Path, waveform: Float32Array) -> None:
    wav = path.with_suffix(".wav")
    _write_wav(wav, waveform)
    command = [
        "ffmpeg",
        "-nostdin",
        "-v",
        "error",
        "-y",
        "-i",
        str(wav),
        "-c:a",
        "aac",
        "-b:a",
        "64k",
        str(path),
    ]
    subprocess.run(command, check=True)
    wav.unlink()
