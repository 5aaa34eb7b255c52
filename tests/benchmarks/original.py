"""The way of the project's first version, in our own few lines: what ours is compared with.

One `ffmpeg` process a file, torchaudio's MelSpectrogram an utterance, one float16 `.npy` an utterance,
then tar and pigz.
"""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torchaudio.transforms import MelSpectrogram

from voxsrc.features import FbankSpec, preset

Float32Array = NDArray[np.float32]
LogMel = Callable[[Float32Array], torch.Tensor]

ARCHIVE_NAME = "features.tar.gz"
FOLDER_NAME = "features"


def missing_programs(*, decodes: bool) -> str:
    """Why this way cannot be run on this machine; empty if it can."""
    needed = ["tar", "pigz", *(["ffmpeg"] if decodes else [])]
    missing = [name for name in needed if shutil.which(name) is None]
    return f"{', '.join(missing)} not installed, which the original's way runs" if missing else ""


def log_mel(spec: FbankSpec) -> LogMel:
    """Waveform (W,) → (F, T) natural-log mel energies by torchaudio, equal to what `spec` describes."""
    transform = MelSpectrogram(
        spec.sample_rate_hz,
        n_fft=spec.n_fft,
        win_length=spec.window_samples,
        hop_length=spec.hop_samples,
        f_min=spec.low_hz,
        f_max=spec.high_hz,
        n_mels=spec.num_mels,
        window_fn=torch.hamming_window,
        wkwargs={"periodic": spec.window_periodic},
        center=spec.centred,
    )
    # Without `center` torch still puts the window into the middle of n_fft samples.
    pad = 0 if spec.centred else (spec.n_fft - spec.window_samples) // 2

    def extract(waveform: Float32Array) -> torch.Tensor:
        samples = torch.from_numpy(waveform)
        if spec.preemphasis:
            samples = torch.cat(
                [samples[:1] * (1 - spec.preemphasis), samples[1:] - spec.preemphasis * samples[:-1]]
            )
        if pad:
            samples = torch.nn.functional.pad(samples, (pad, pad))
        return torch.log(transform(samples) + spec.log_offset)

    return extract


def extract_compressed(files: Sequence[Path], output: Path) -> None:
    """Any audio files → `output`/features.tar.gz, through one wav file each."""
    wavs = []
    for number, file in enumerate(files):
        wav = output / "wav" / f"{number:06d}.wav"
        wav.parent.mkdir(parents=True, exist_ok=True)
        command = [
            "ffmpeg",
            "-nostdin",
            "-v",
            "error",
            "-y",
            "-i",
            str(file),
            "-ac",
            "1",
            "-ar",
            "16000",
            str(wav),
        ]
        subprocess.run(command, check=True)
        wavs.append(wav)
    extract_wavs(wavs, output)


def extract_wavs(files: Sequence[Path], output: Path) -> None:
    """16 kHz wav files → `output`/features.tar.gz."""
    extract = log_mel(preset("voxceleb_trainer"))
    folder = output / FOLDER_NAME
    folder.mkdir(parents=True)
    for number, file in enumerate(files):
        waveform, _ = soundfile.read(file, dtype="float32")
        features = extract(waveform).numpy().T
        np.save(folder / f"{number:06d}.npy", features.astype(np.float16))
    archive = ["tar", "-I", "pigz", "-cf", str(output / ARCHIVE_NAME), "-C", str(output), FOLDER_NAME]
    subprocess.run(archive, check=True)


def read_all(archive: Path, output: Path) -> int:
    """Unpacks an archive into `output` and reads every utterance as float32; returns the frames."""
    output.mkdir(parents=True)
    subprocess.run(["tar", "-I", "pigz", "-xf", str(archive), "-C", str(output)], check=True)
    return sum(len(np.load(file).astype(np.float32)) for file in sorted((output / FOLDER_NAME).iterdir()))
