"""The utterances that the trials name: their embeddings, durations and speakers."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from voxsrc import storage
from voxsrc.corpus import TrialList
from voxsrc.embedding import EmbeddingError, Embeddings
from voxsrc.embedding.embedder import Embedder
from voxsrc.embedding.embeddings import TOO_LONG
from voxsrc.embedding.opening import open_for_embedding
from voxsrc.errors import CorpusError
from voxsrc.feature_set import FeatureSet
from voxsrc.features import FbankSpec
from voxsrc.scoring import UnknownUtterancesError, pairs_of
from voxsrc.trial_lists import trusted_speakers

UNUSABLE_NAME = "unusable_utterances.txt"


class TrialUtterances(Protocol):
    """Where the trials' utterances come from.

    Attributes:
        uri: Feature set or audio.
        speaker_of: Speaker of each utterance by its id; None if nobody knows.
        warnings: What a reader of the results has to know.
    """

    uri: str
    speaker_of: Mapping[str, str] | None
    warnings: list[str]

    def embed(self, embedder: Embedder, trials: TrialList) -> Embeddings:
        """The embeddings of all utterances of the trials.

        Raises:
            UnknownUtterancesError: If some are not there; it knows all.
            EmbeddingError: If some cannot be embedded; it knows all.
        """


class StoredUtterances:
    """Utterances of a feature set, to be embedded on a device.

    Raises:
        ConfigError: If there is no such device.
        FeatureSetError: If it was made with another spec than `spec`.
        NotFoundError: If there is no finished set.
    """

    def __init__(self, uri: str, spec: FbankSpec, device: str) -> None:
        self.uri = uri
        self.warnings: list[str] = []
        self._features = open_for_embedding(uri, device, spec=spec)
        index = self._features.index
        self.speaker_of: Mapping[str, str] | None = dict(
            zip(index.utterance_ids, index.speaker_ids, strict=True)
        )
        if warning := _low_rate_warning(self._features):
            self.warnings.append(warning)

    def embed(self, embedder: Embedder, trials: TrialList) -> Embeddings:
        """See `TrialUtterances`."""
        pairs_of(trials, self._features.index.utterance_ids)
        return embedder.embed_set(self._features, trials.utterance_ids())


def _low_rate_warning(features: FeatureSet) -> str:
    """That utterances had too low a sample rate; empty if none had."""
    counts, spec = features.manifest.counts, features.manifest.spec
    low_rate, of_all = counts.get("low_rate_utterances"), f"of {len(features):,} utterances of {features.uri}"
    if low_rate:
        return (
            f"{low_rate:,} {of_all} had too low a sample rate: they have no energy above half of it, the "
            f"features reach {spec.high_hz:g} Hz, and scores with them are unreliable"
        )
    if low_rate is None and (resampled := counts.get("resampled_utterances")):
        return (
            f"{resampled:,} {of_all} had another sample rate than {spec.sample_rate_hz} Hz; how many a lower "
            "one, the set does not say, as an earlier version made it: such utterances have no energy above "
            "half of their rate, and scores with them are unreliable; a higher rate does no harm"
        )
    return ""


class RecordedUtterances:
    """Utterances as audio, in one folder or archive or in several."""

    def __init__(self, uris: Sequence[str], trials: TrialList) -> None:
        self.uri = ", ".join(uris)
        self._uris = uris
        self.warnings: list[str] = []
        self.speaker_of: Mapping[str, str] | None
        self.speaker_of, reason = trusted_speakers(trials)
        if reason:
            self.warnings.append(
                f"the speakers are unknown, so there are no intervals: {reason}; paths tell them in the form "
                "speaker/[session/]file, --features in any"
            )

    def embed(self, embedder: Embedder, trials: TrialList) -> Embeddings:
        """See `TrialUtterances`."""
        embeddings, report = embedder.embed_audio(self._uris, trials.utterance_ids())
        self.warnings += report.notes(embedder.model.description.spec)
        return embeddings


def embedded(
    utterances: TrialUtterances, embedder: Embedder, trials: TrialList, trials_uri: str, output_uri: str
) -> Embeddings:
    """Embeds the trials' utterances; those that cannot be are all written to a file of the output.

    Raises:
        CorpusError: If some cannot be; counts them, names some, and the file that names all.
    """
    try:
        return utterances.embed(embedder, trials)
    except UnknownUtterancesError as error:
        reasons = dict.fromkeys(error.utterance_ids, "missing: not in the features")
        message = str(error)
    except EmbeddingError as error:
        if TOO_LONG in error.codes:
            remedy = (
                "mend them, leave them out, or take --scoring mean-distance, for which any length will do"
            )
            error = EmbeddingError(error.what, error.reasons, remedy)
        reasons, message = error.reasons, str(error)
    file_uri = storage.join(output_uri, UNUSABLE_NAME)
    lines = (f"{name}\t{reason}\n" for name, reason in reasons.items())
    storage.write_bytes(file_uri, "".join(lines).encode())
    raise CorpusError(
        f"{trials_uri}, {utterances.uri}: {message}\nAll {len(reasons):,} are listed in {file_uri}"
    )
