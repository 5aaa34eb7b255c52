"""What is added to speech: recordings of noise and music, and babble of the other training speakers.

Letters: B samples, V voices.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.data import DeviceFeatures
from trainer.placement import DataConfig
from trainer.utterances import TrainingUtterances, crop_offsets
from voxsrc.corpus import speed_copies
from voxsrc.errors import ConfigError, FeatureSetError, NotFoundError
from voxsrc.features import FbankSpec
from voxsrc.randomness import integers_below


@contextmanager
def naming_key(key: str) -> Iterator[None]:
    """Has errors about a feature set begin with the configuration's key that names it."""
    try:
        yield
    except NotFoundError as error:
        raise NotFoundError(f"{key}: {error}") from error
    except FeatureSetError as error:
        raise FeatureSetError(f"{key}: {error}") from error


class NoiseSource(Protocol):
    """Crops that can be added to speech.

    Attributes:
        features: Where the crops are read.
        max_voices: Crops V for each sample.
        num_uniforms: Uniform numbers that `choose` takes for each sample.
    """

    features: DeviceFeatures
    max_voices: int
    num_uniforms: int

    def choose(
        self, labels: NDArray[np.int64], uniforms: NDArray[np.float64], crop_frames: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Chooses crops.

        Args:
            labels: (B,) the samples' speakers.
            uniforms: (B, num_uniforms) in [0, 1).
            crop_frames: Frames of each crop.

        Returns:
            (B, V) rows in the set's index, (B, V) first frames, (B, V) relative energies.
        """
        ...


class Recordings:
    """Noise or music: one recording of a feature set for each sample, each as likely, begun anywhere.

    A recording shorter than the crop is looped.
    """

    max_voices = 1
    num_uniforms = 2

    def __init__(self, features: DeviceFeatures) -> None:
        self.features = features

    @classmethod
    def open(
        cls,
        uri: str,
        device: str | torch.device,
        config: DataConfig,
        spec: FbankSpec,
        *,
        key: str,
        processes_on_node: int = 1,
    ) -> "Recordings":
        """Opens a feature set of noise or music.

        Args:
            uri: The set's folder.
            device: Where crops are wanted.
            config: Where to hold the frames.
            spec: The speech's; the set must have been made with it.
            key: The configuration's key of `uri`, for errors.
            processes_on_node: Training processes that share this machine's memory.

        Raises:
            NotFoundError: If there is no finished set.
            FeatureSetError: If it was made with another spec, or is damaged.
            ConfigError: If it is empty.
        """
        with naming_key(key):
            try:
                features = DeviceFeatures.open(
                    uri, device, config, spec=spec, processes_on_node=processes_on_node
                )
            except FeatureSetError as error:
                raise FeatureSetError(f"{error}; extract the noise with the speech's spec") from error
        if not len(features.index):
            raise ConfigError(f"{key}: {uri} has no recordings; give a feature set that has some")
        return cls(features)

    def choose(
        self, labels: NDArray[np.int64], uniforms: NDArray[np.float64], crop_frames: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """One crop for each sample, see `NoiseSource`."""
        index = self.features.index
        rows = integers_below(len(index), uniforms[:, :1])
        offsets = crop_offsets(index.num_frames[rows], crop_frames, uniforms[:, 1:])
        return rows, index.first_frames[rows] + offsets, np.ones(rows.shape)


class Babble:
    """Several utterances of training speakers other than the sample's, at equal energy.

    Speed-perturbed copies count as the speaker that they are copies of.

    Args:
        features: The training features.
        utterances: The utterances to choose among.
        num_voices: Fewest and most voices.

    Raises:
        ConfigError: If there is no other speaker.
    """

    def __init__(
        self, features: DeviceFeatures, utterances: TrainingUtterances, num_voices: tuple[int, int]
    ) -> None:
        self.features = features
        self._num_voices = num_voices
        self.max_voices = num_voices[1]
        self.num_uniforms = 1 + 2 * self.max_voices
        copies = speed_copies(utterances.speaker_ids, features.manifest.made_from)
        names, self._person_of_label = np.unique(
            [copies.get(speaker, speaker) for speaker in utterances.speaker_ids], return_inverse=True
        )
        if len(names) < 2:
            raise ConfigError(
                f"augment.babble needs other speakers, but the training set has {names[0]} alone; "
                "set augment.babble.probability to 0"
            )
        persons = self._person_of_label[utterances.labels]
        self._utterances = utterances
        self._by_person = np.argsort(persons, kind="stable")
        self._counts = np.bincount(persons)
        self._starts = np.cumsum(self._counts) - self._counts

    def choose(
        self, labels: NDArray[np.int64], uniforms: NDArray[np.float64], crop_frames: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Crops of other speakers for each sample, those beyond its number of voices with energy 0."""
        which, where = uniforms[:, 1 : 1 + self.max_voices], uniforms[:, 1 + self.max_voices :]
        persons = self._person_of_label[labels][:, None]
        own = self._counts[persons]
        # Counted without the sample's own block of utterances, which is then stepped over.
        places = integers_below(len(self._utterances) - own, which)
        places += np.where(places >= self._starts[persons], own, 0)
        chosen = self._by_person[places]
        offsets = crop_offsets(self._utterances.num_frames[chosen], crop_frames, where)
        fewest, most = self._num_voices
        num_voices = fewest + integers_below(most - fewest + 1, uniforms[:, :1])
        weights = (np.arange(self.max_voices) < num_voices).astype(np.float64)
        return self._utterances.rows[chosen], self._utterances.first_frames[chosen] + offsets, weights
