"""Is it the same speaker? Two recordings compared, or one with many enrolled speakers, by a trained model.

    verifier = Verifier.load("runs/fast_resnet34/model")
    answer = verifier.compare("a.wav", "b.m4a")
    print(answer.score, answer.probability, answer.accepted)

Letter: D embedding.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from voxsrc import storage
from voxsrc.audio import Recording, decode
from voxsrc.embedding.embedder import Embedder
from voxsrc.embedding.embeddings import EmbeddingError, Float32Array
from voxsrc.errors import AudioError, ConfigError, CorpusError, VoxsrcError
from voxsrc.features import FbankSpec
from voxsrc.features.scipy_log_mel import LogMelExtractor
from voxsrc.identification import Enrollment, Identification, identify
from voxsrc.models.stored import ModelError, load_model
from voxsrc.scoring import LogisticCalibration, cosine_scores, probability, threshold
from voxsrc.sources import match_all_files, open_source

DEFAULT_PRIOR = 0.5

_log = logging.getLogger(__name__)
_ENROLL_REMEDY = "give a folder with at least one usable recording as speaker/[session/]file"


class VerificationError(VoxsrcError):
    """A recording or an enrolment cannot be used."""


@dataclass(frozen=True)
class Verification:
    """What two recordings say about their speakers.

    Attributes:
        score: Cosine of the embeddings, in [-1, 1].
        llr: Natural logarithm of how many times likelier the score is for one speaker than for two; None
            if the model has no calibration.
        probability: That it is one speaker, given the prior; None if the model has no calibration.
        threshold: Least score that is accepted; None if the model has no calibration and none was given.
        accepted: Whether it is taken for one speaker; None without a threshold.
    """

    score: float
    llr: float | None
    probability: float | None
    threshold: float | None
    accepted: bool | None


class Verifier:
    """Compares speakers by a stored model.

    Args:
        embedder: Embeds whole utterances.
        calibration: From cosine to log-likelihood ratio; None gives scores alone.
        on_warning: Called with a sentence on audio that the model was not made for; by default it is logged.
    """

    def __init__(
        self,
        embedder: Embedder,
        calibration: LogisticCalibration | None,
        on_warning: Callable[[str], None] = _log.warning,
    ) -> None:
        self.calibration = calibration
        self._embedder = embedder
        self._spec = embedder.model.description.spec
        self._extract = LogMelExtractor(self._spec)
        self._warn = on_warning

    @classmethod
    def load(
        cls,
        model_uri: str,
        device: str = "cpu",
        *,
        cache_uri: str | None = None,
        on_warning: Callable[[str], None] = _log.warning,
    ) -> Self:
        """The verifier of the model in a folder, local or gs://.

        Args:
            model_uri: The folder.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            cache_uri: Folder that keeps embeddings of enrolled speakers.
            on_warning: See the class.

        Raises:
            NotFoundError: If there is no model.
            ModelError: If it is damaged, or its calibration is not one of cosine scores.
        """
        model = load_model(model_uri)
        calibration = _calibration(model.description.calibration, model_uri)
        return cls(Embedder(model, device=device, cache_uri=cache_uri), calibration, on_warning)

    def embed(self, audio: str | os.PathLike[str]) -> Float32Array:
        """The embedding (D,) of a recording, not length-normalised.

        Warns if the recording has several channels, or a sample rate too low for the model.

        Raises:
            VerificationError: If the recording cannot be used.
            StorageError: If it cannot be read.
        """
        uri = os.fspath(audio)
        content = storage.read_bytes(uri)
        try:
            recording = decode(content, sample_rate_hz=self._spec.sample_rate_hz)
            for warning in _warnings(uri, recording, self._spec):
                self._warn(warning)
            return self._embedder.embed_features(self._extract(recording.waveform))
        except AudioError as error:
            remedy = "" if error.reason == "too_long" else "; give a recording of speech"
            raise VerificationError(f"{uri} cannot be used: {error}{remedy}") from error

    def compare(
        self,
        first: str | os.PathLike[str],
        second: str | os.PathLike[str],
        *,
        prior: float = DEFAULT_PRIOR,
        c_miss: float = 1.0,
        c_fa: float = 1.0,
        min_score: float | None = None,
    ) -> Verification:
        """Compares the speakers of two recordings.

        Args:
            first: A recording, local or gs://.
            second: Another.
            prior: How probable one speaker is before listening, in (0, 1).
            c_miss: Cost of taking one speaker for two.
            c_fa: Cost of taking two speakers for one.
            min_score: Score from which to accept; by default Bayes' for prior and costs, if the model is
                calibrated.

        Raises:
            VerificationError: If a recording cannot be used.
            ConfigError: If `min_score` is out of range.
            ScoringError: If the prior or a cost is.
        """
        bayes_llr = threshold(prior, c_miss, c_fa)
        _check_min_score(min_score)
        pair = np.stack([self.embed(first), self.embed(second)])
        scores = cosine_scores(pair, [0], [1])
        score = float(scores[0])
        llr, probable, least = None, None, min_score
        if self.calibration is not None:
            llr = float(self.calibration.llr(scores)[0])
            probable = float(probability(llr, prior))
            least = self.calibration.score_at(bayes_llr) if min_score is None else min_score
        return Verification(score, llr, probable, least, None if least is None else score >= least)

    def enroll(self, audio_uri: str) -> Enrollment:
        """Enrolls the speakers of a folder or archive with files `speaker/[session/]file`.

        Raises:
            VerificationError: If there is no usable recording.
            CorpusError: If the files do not lie so.
        """
        with contextlib.closing(open_source(audio_uri)) as source:
            if not source.scan().members:
                raise VerificationError(f"{audio_uri} has no recordings to enroll; {_ENROLL_REMEDY}")
            try:
                matching = match_all_files(source)
            except CorpusError as error:
                raise CorpusError(f"{audio_uri}: {error}") from error
            embeddings, report = self._embedder.embed_matched(source, matching.pairs)
        for note in (*matching.notes, *report.notes(self._spec)):
            self._warn(f"{audio_uri}: {note}")
        if not len(embeddings):
            unusable = EmbeddingError(
                f"none of the {len(matching.pairs)} recordings of {audio_uri} is usable",
                report.reasons,
                _ENROLL_REMEDY,
            )
            raise VerificationError(str(unusable)) from unusable
        if report.reasons:
            name, reason = next(iter(report.reasons.items()))
            self._warn(
                f"{audio_uri}: {len(report.reasons)} of {len(matching.pairs)} recordings cannot be used and "
                f"are left out, the first is {name} ({reason})"
            )
        speaker_of = {utterance.utterance_id: utterance.speaker_id for utterance, _ in matching.pairs}
        speakers = [speaker_of[utterance_id] for utterance_id in embeddings.utterance_ids]
        return Enrollment.of(embeddings.vectors, speakers, report.reasons)

    def identify(
        self,
        audio: str | os.PathLike[str],
        enrolled: Enrollment,
        *,
        top: int = 5,
        prior: float = DEFAULT_PRIOR,
        min_score: float | None = None,
    ) -> Identification:
        """Finds who of the enrolled speaks in a recording, if any; see `voxsrc.identification`.

        Args:
            audio: The recording, local or gs://.
            enrolled: Speakers, from `enroll`.
            top: How many candidates to return.
            prior: How probable it is, before listening, that the speaker is enrolled, in (0, 1).
            min_score: Score from which to accept the best; by default Bayes', if the model is calibrated.

        Raises:
            VerificationError: If the recording cannot be used.
            ConfigError: If `top` or `min_score` is out of range.
            ScoringError: If the prior is.
        """
        _check_min_score(min_score)
        return identify(
            self.embed(audio), enrolled, self.calibration, top=top, prior=prior, min_score=min_score
        )


def _check_min_score(min_score: float | None) -> None:
    if min_score is not None and not -1 <= min_score <= 1:
        raise ConfigError(f"threshold is {min_score}; expected a cosine from -1 to 1")


def _warnings(uri: str, recording: Recording, spec: FbankSpec) -> list[str]:
    found = []
    rate_hz = recording.source_rate_hz
    if rate_hz / 2 < spec.high_hz:
        found.append(
            f"{uri} has a sample rate of {rate_hz} Hz and thus no energy above {rate_hz / 2:g} Hz; the model "
            f"was trained on audio at {spec.sample_rate_hz} Hz and listens up to {spec.high_hz:g} Hz. Scores "
            f"with this recording are unreliable: give the original at {spec.sample_rate_hz} Hz or more, or "
            f"train a model on features with high_hz {rate_hz / 2:g} or less"
        )
    if recording.num_channels > 1:
        found.append(
            f"{uri} has {recording.num_channels} channels, which are averaged; if each has a speaker of its "
            "own, as in a recorded call, give one channel"
        )
    return found


def _calibration(fields: Mapping[str, Any] | None, model_uri: str) -> LogisticCalibration | None:
    if fields is None:
        return None
    try:
        calibration = LogisticCalibration.from_dict(fields)
    except ConfigError as error:
        raise ModelError(f"{model_uri}: {error}") from error
    scoring = calibration.fitted_on.get("scoring", "cosine")
    if len(calibration.inputs) != 1 or not calibration.well_ordered or not scoring.startswith("cosine"):
        raise ModelError(
            f"{model_uri}: its calibration has inputs {', '.join(calibration.inputs)} with weights "
            f"{calibration.weights}, fitted on scores by {scoring}; expected one positive weight, of a cosine"
        )
    return calibration
