"""The calibration of a model's scores, on speakers that were held out of its training.

With it a cosine becomes a log-likelihood ratio, whose threshold for an application is known beforehand: no
test speaker is needed to choose it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from trainer.data import DeviceFeatures
from trainer.validation import Validation
from voxsrc.embedding.embeddings import MAX_FRAMES
from voxsrc.errors import CorpusError
from voxsrc.models.encoder import SpeakerEncoder, evaluating
from voxsrc.scoring import LogisticCalibration, ScoringError, cosine_scores

_log = logging.getLogger("trainer")


@contextmanager
def _without_benchmark() -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def fitted_calibration(
    encoder: SpeakerEncoder, features: DeviceFeatures, validation: Validation | None
) -> LogisticCalibration | None:
    """Fitted to cosines of the held-out speakers' whole utterances; None, and said, if it cannot be.

    Args:
        encoder: The trained network; left in the mode in which it was.
        features: The training set's.
        validation: The held-out trials; None if nobody was held out.
    """
    if validation is None:
        _log.warning("the model has no calibration, as no speakers were held out (validation.fraction is 0)")
        return None
    num_frames = features.index.num_frames[validation.trials.rows]
    usable = (num_frames >= encoder.min_frames) & (num_frames <= MAX_FRAMES)
    try:
        trials = validation.trials.among(usable)
        # Lengths differ: on a GPU each would have cuDNN time all its algorithms anew.
        with evaluating(encoder), torch.inference_mode(), _without_benchmark():
            embeddings = [encoder(features.utterance(row).T[None])[0] for row in trials.rows.tolist()]
        vectors = torch.stack(embeddings).float().cpu().numpy().astype(np.float64)
        scores = cosine_scores(vectors, trials.first, trials.second)
        calibration = trials.calibration(scores, "cosine of whole utterances")
    except (CorpusError, ScoringError) as error:
        _log.warning("the model has no calibration: %s", error)
        return None
    if not calibration.well_ordered:
        _log.warning(
            "the model has no calibration: held-out speakers score lower against themselves than against "
            "others, so it has learned nothing that carries over"
        )
        return None
    return calibration
