"""Short pieces of recordings for the report's players."""

import io
import logging
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import soundfile

from voxsrc.audio import decode
from voxsrc.corpus import Utterance
from voxsrc.errors import AudioError
from voxsrc.sources import Member, ReadResult, match_utterances, open_sources

CLIP_S = 8.0

_SAMPLE_RATE_HZ = 16_000
_log = logging.getLogger("evaluator")


class Clips:
    """The beginnings of recordings, read when they are asked for.

    Args:
        audio_uris: Folder, tar or zip of the recordings, or several; empty if there is none: no clips.
        utterance_ids: Those that may be asked for.

    Raises:
        CorpusError: If the audio has none of the first utterances, or some of them twice.
        StorageError: If it cannot be read.
    """

    def __init__(self, audio_uris: str | Sequence[str], utterance_ids: Iterable[str]) -> None:
        self._source = open_sources(audio_uris) if audio_uris else None
        if self._source is None:
            return
        utterances = [Utterance(name, "", "") for name in utterance_ids]
        pairs = match_utterances(self._source, utterances).pairs
        self._member_of = {utterance.utterance_id: member for utterance, member in pairs}

    def __call__(self, utterance_ids: Sequence[str]) -> dict[str, bytes]:
        """The first seconds of each as FLAC, mono at 16 kHz; a warning where there are none.

        The audio is read once, in its own order: in a compressed archive every step back is a pass from its
        beginning.
        """
        if self._source is None:
            return {}
        names_of: dict[Member, list[str]] = {}
        for name in utterance_ids:
            member = self._member_of.get(name)
            if member is None:
                _warn(name, "the audio does not have it")
            else:
                names_of.setdefault(member, []).append(name)
        members = sorted(names_of, key=lambda member: member.place)
        clips = {}
        for member, data in zip(members, self._source.read_all(members), strict=True):
            try:
                clip = _beginning(data)
            except AudioError as error:
                for name in names_of[member]:
                    _warn(name, str(error))
            else:
                clips.update(dict.fromkeys(names_of[member], clip))
        return clips

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the audio."""
        if self._source is not None:
            self._source.close()


def _beginning(data: ReadResult) -> bytes:
    """The first seconds of a recording as FLAC."""
    if isinstance(data, AudioError):
        raise data
    waveform = decode(data, sample_rate_hz=_SAMPLE_RATE_HZ).waveform[: int(CLIP_S * _SAMPLE_RATE_HZ)]
    samples = np.rint(waveform * np.iinfo(np.int16).max).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, samples, _SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _warn(utterance_id: str, reason: str) -> None:
    _log.warning("no player for %s: %s", utterance_id, reason)
