"""What trainings are measured on: a feature set with the same utterances as wav, or random features."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.data import DeviceFeatures
from voxsrc.corpus import Utterance, write_utterance_list
from voxsrc.feature_set import Encoding, Manifest, read_manifest
from voxsrc.feature_set.index import UtteranceIndex, index_from_parquet
from voxsrc.feature_set.manifest import INDEX_NAME, StoredFile, read_verified
from voxsrc.features import FbankSpec

VOXCELEB2_UTTERANCES = 1_092_009
_VOXCELEB2_SPEAKERS = 5994
_UTTERANCE_FRAMES = 780  # VoxCeleb2's mean
_SAMPLE_MINUTES = 20.0
_JOINED_S = 6.0


@dataclass(frozen=True)
class Corpus:
    """Utterances as features and as wav.

    Attributes:
        features: Feature set.
        num_mels: Its mel bands.
        num_utterances: Its utterances.
        wavs: Folder of 16 kHz PCM16 wav files; None if there is none.
        list_file: Their list, lines `speaker path`.
    """

    features: str
    num_mels: int
    num_utterances: int
    wavs: Path | None
    list_file: Path | None


def given_corpus(features: str, wavs: Path | None, scratch: Path) -> Corpus:
    """A feature set that the user has, and wav files called as its utterances are.

    Raises:
        FileNotFoundError: If one of the wav files is missing.
    """
    manifest = read_manifest(features)
    list_file = None
    if wavs is not None:
        index = index_from_parquet(
            read_verified(features, manifest.index), [shard.num_frames for shard in manifest.shards]
        )
        utterances = []
        for utterance_id, speaker_id in zip(index.utterance_ids, index.speaker_ids, strict=True):
            path = str(PurePosixPath(utterance_id).with_suffix(".wav"))
            if not (wavs / path).is_file():
                raise FileNotFoundError(
                    f"{wavs / path} is missing; expected every utterance of {features} as 16 kHz wav in "
                    "--wavs: leave out --features and --wavs to measure on the bundled samples"
                )
            utterances.append(Utterance(path, speaker_id, ""))
        list_file = scratch / "wavs.txt"
        write_utterance_list(str(list_file), utterances)
    return Corpus(features, manifest.spec.num_mels, manifest.num_utterances, wavs, list_file)


def sample_corpus(samples: Path, hours: float, scratch: Path) -> Corpus:
    """The bundled speech as wav files and as a feature set, under so many names that it lasts `hours`.

    A speaker's utterances are joined to VoxCeleb's length: whole files are read, whatever the crop is.
    """
    import ours
    from material import SAMPLE_RATE_HZ, Audio, as_wav, choose, repeated

    audio, waveforms = choose(samples, samples / "train_list.txt", _SAMPLE_MINUTES, scratch)
    utterances: list[Utterance] = []
    longer: list[NDArray[np.float32]] = []
    pairs = zip(audio.utterances, waveforms, strict=True)
    for speaker, group in groupby(pairs, key=lambda pair: pair[0].speaker_id):
        whole = np.concatenate([waveform for _, waveform in group])
        # Every part lasts at least as long; a speaker who has less is left as a whole.
        for part in np.array_split(whole, max(1, len(whole) // int(_JOINED_S * SAMPLE_RATE_HZ))):
            utterances.append(Utterance(f"{speaker}/joined/{len(longer):06d}.wav", speaker, "joined"))
            longer.append(part)
    joined = Audio(scratch, None, utterances, audio.seconds)
    # More than the caches of a processor hold, as a real set is.
    audio = repeated(as_wav(joined, longer, scratch / "wavs"), hours, scratch / "repeated")
    features = scratch / "features"
    ours.extract(audio, features, "--preset", "voxceleb_trainer")
    manifest = read_manifest(str(features))
    return Corpus(str(features), manifest.spec.num_mels, manifest.num_utterances, audio.root, audio.list_file)


def synthetic_features(num_mels: int, gigabytes: float, device: torch.device) -> DeviceFeatures:
    """Random bytes on the device, cut into utterances and speakers as VoxCeleb2 is."""
    spec = FbankSpec(num_mels=num_mels)
    num_utterances = max(8, round(1e9 * gigabytes / num_mels / _UTTERANCE_FRAMES))
    num_speakers = min(_VOXCELEB2_SPEAKERS, num_utterances // 4)
    num_frames = num_utterances * _UTTERANCE_FRAMES
    speakers = [f"id{number % num_speakers:05d}" for number in range(num_utterances)]
    index = UtteranceIndex(
        utterance_ids=[f"{speaker}/s/{n:07d}.wav" for n, speaker in enumerate(speakers)],
        speaker_ids=speakers,
        session_ids=["s"] * num_utterances,
        shards=np.zeros(num_utterances, np.int64),
        first_frames=np.arange(num_utterances, dtype=np.int64) * _UTTERANCE_FRAMES,
        num_frames=np.full(num_utterances, _UTTERANCE_FRAMES, np.int64),
    )
    manifest = Manifest(
        spec=spec,
        encoding=Encoding.for_spec(spec),
        num_utterances=num_utterances,
        num_speakers=num_speakers,
        num_frames=num_frames,
        num_samples=num_frames * spec.hop_samples,
        shards=[],
        index=StoredFile(INDEX_NAME, 0, "0" * 64),
    )
    frames = torch.randint(0, 256, (num_frames, num_mels), dtype=torch.uint8, device=device)
    return DeviceFeatures(index, manifest, frames, device, "gpu" if device.type == "cuda" else "ram")
