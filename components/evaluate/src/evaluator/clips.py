"""Short pieces of recordings for the report's players."""

import io
import logging
from collections.abc import Iterable
from typing import Self

import numpy as np
import soundfile

from voxsrc.audio import decode
from voxsrc.corpus import Utterance
from voxsrc.errors import AudioError
from voxsrc.sources import match_utterances, open_source

CLIP_S = 8.0

_SAMPLE_RATE_HZ = 16_000
_log = logging.getLogger("evaluator")


class Clips:
    """The beginnings of recordings, each read when it is asked for.

    Args:
        audio_uri: Folder, tar or zip of the recordings; None if there is none: no clips.
        utterance_ids: Those that may be asked for.

    Raises:
        CorpusError: If the audio has none of the first utterances.
        StorageError: If it cannot be read.
    """

    def __init__(self, audio_uri: str | None, utterance_ids: Iterable[str]) -> None:
        self._source = None if audio_uri is None else open_source(audio_uri)
        if self._source is None:
            return
        utterances = [Utterance(name, "", "") for name in utterance_ids]
        pairs = match_utterances(self._source, utterances).pairs
        self._member_of = {utterance.utterance_id: member for utterance, member in pairs}

    def __call__(self, utterance_id: str) -> bytes | None:
        """The first seconds as FLAC, mono at 16 kHz; None, and a warning, where there are none."""
        if self._source is None:
            return None
        member = self._member_of.get(utterance_id)
        if member is None:
            _log.warning("no player for %s: the audio does not have it", utterance_id)
            return None
        [data] = self._source.read_all([member])
        try:
            if isinstance(data, AudioError):
                raise data
            waveform = decode(data, sample_rate_hz=_SAMPLE_RATE_HZ).waveform
        except AudioError as error:
            _log.warning("no player for %s: %s", utterance_id, error)
            return None
        clip = waveform[: int(CLIP_S * _SAMPLE_RATE_HZ)]
        file = io.BytesIO()
        samples = np.rint(clip * np.iinfo(np.int16).max).astype(np.int16)
        soundfile.write(file, samples, _SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        return file.getvalue()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the audio."""
        if self._source is not None:
            self._source.close()
