"""What the model's own training set gives to scoring: a cohort, and held-out speakers to calibrate on."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from voxsrc.corpus import speed_copies, split_speakers
from voxsrc.embedding import Embeddings
from voxsrc.embedding.embedder import Embedder
from voxsrc.embedding.opening import open_for_embedding
from voxsrc.errors import ConfigError, CorpusError
from voxsrc.feature_set import FeatureSet
from voxsrc.held_out import HeldOutTrials
from voxsrc.models.stored import StoredModel


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The features that a model was trained on.

    Attributes:
        features: All of them.
        cohort_speakers: Speakers that the training saw.
        held_out_speakers: Speakers that it did not see; empty if it held out nobody.
        copies: Those of all that are speed-perturbed copies, each with the speaker that it copies.
        matches: Whether the model says that it was trained on exactly these features.
    """

    features: FeatureSet
    cohort_speakers: frozenset[str]
    held_out_speakers: frozenset[str]
    copies: Mapping[str, str]
    matches: bool

    @classmethod
    def open(cls, uri: str, model: StoredModel, device: str) -> "TrainingSet":
        """Opens the set, to be embedded on a device, and divides its speakers as the model's training did.

        Raises:
            ConfigError: If there is no such device.
            FeatureSetError: If it was made with another spec than the model's, or its manifest is damaged.
            NotFoundError: If there is no finished set.
        """
        features = open_for_embedding(uri, device, spec=model.description.spec)
        validation = model.description.recipe.get("validation")
        fraction = validation.get("fraction") if isinstance(validation, dict) else None
        if not isinstance(fraction, int | float):
            raise ConfigError(
                f"the model's recipe has no validation.fraction (found {fraction!r}), so that nobody can "
                "tell which speakers of --train-features it never saw; leave --train-features out"
            )
        speakers = sorted(set(features.index.speaker_ids))
        copies = speed_copies(speakers, features.manifest.made_from)
        held_out: list[str] = []
        if fraction > 0:
            speakers, held_out = split_speakers(speakers, copies=copies, validation_fraction=fraction)
        trained_on = model.description.provenance.get("features_sha256")
        matches = trained_on == features.manifest.content_sha256
        return cls(features, frozenset(speakers), frozenset(held_out), copies, matches)

    def without(self, speaker_ids: Set[str]) -> "TrainingSet":
        """Uses none of these speakers, say those of the trials, who are to be strangers to the scoring."""
        return replace(
            self,
            cohort_speakers=self.cohort_speakers - speaker_ids,
            held_out_speakers=self.held_out_speakers - speaker_ids,
        )

    def cohort(self, embedder: Embedder, max_utterances: int) -> tuple[Embeddings, list[str]]:
        """Embeddings of the speakers that training saw, and the speaker of each.

        Speed-perturbed copies are left out: nobody in a trial speaks like that.

        Args:
            embedder: What with.
            max_utterances: Most utterances of a speaker, chosen by hash.

        Raises:
            CorpusError: If there are fewer than two speakers.
        """
        index = self.features.index
        by_speaker: defaultdict[str, list[str]] = defaultdict(list)
        for utterance_id, speaker_id in zip(index.utterance_ids, index.speaker_ids, strict=True):
            if speaker_id in self.cohort_speakers and speaker_id not in self.copies:
                by_speaker[speaker_id].append(utterance_id)
        chosen = {
            utterance_id: speaker_id
            for speaker_id, utterance_ids in by_speaker.items()
            for utterance_id in sorted(utterance_ids, key=_rank)[:max_utterances]
        }
        ids = self._embeddable(list(chosen), embedder)
        speaker_ids = [chosen[utterance_id] for utterance_id in ids]
        if len(set(speaker_ids)) < 2:
            raise CorpusError(
                f"{self.features.uri} has {len(set(speaker_ids))} speakers whom the training saw and who "
                "are in no trial; expected two or more"
            )
        return embedder.embed_set(self.features, ids), speaker_ids

    def held_out_trials(self, embedder: Embedder) -> tuple[Embeddings, HeldOutTrials] | None:
        """Embeddings of the speakers that training never saw, and trials among them; None without such.

        Raises:
            CorpusError: If their utterances make no trials of both kinds.
        """
        if not self.held_out_speakers:
            return None
        index = self.features.index
        trials = HeldOutTrials.of(index, self.held_out_speakers, copies=self.copies)
        counts = index.num_frames[trials.rows].tolist()
        trials = trials.among(np.array([not embedder.length_problem(count) for count in counts]))
        return embedder.embed_set(self.features, [index.utterance_ids[row] for row in trials.rows]), trials

    def _embeddable(self, utterance_ids: Sequence[str], embedder: Embedder) -> list[str]:
        """Those that the model can embed: one of a cohort's speaker's utterances less does no harm."""
        num_frames = dict(zip(self.features.index.utterance_ids, self.features.index.num_frames, strict=True))
        return [name for name in utterance_ids if not embedder.length_problem(int(num_frames[name]))]


def _rank(utterance_id: str) -> bytes:
    return hashlib.sha256(utterance_id.encode()).digest()
