"""Short recordings inside of the page, as data URIs, up to a bound."""

import base64
from collections.abc import Mapping

from evaluator.report.data import ReportError

MOST_BYTES = 8_000_000
_TYPES = {b"RIFF": "audio/wav", b"fLaC": "audio/flac", b"OggS": "audio/ogg", b"ID3": "audio/mpeg"}


class Clips:
    """Gives the clips of utterances until the bound is reached; counts what it gave and left out.

    Args:
        contents: Bytes of the clips, by utterance id.
        most_bytes: Bound of all clips together, before they are encoded.
    """

    def __init__(self, contents: Mapping[str, bytes], most_bytes: int = MOST_BYTES) -> None:
        self._contents = contents
        self._left = most_bytes
        self.num_given = 0
        self.num_left_out = 0

    def uri(self, utterance_id: str) -> str:
        """A `data:` URI, empty if there is no clip or no room for it.

        Raises:
            ReportError: If the clip's format is not one that browsers play.
        """
        content = self._contents.get(utterance_id)
        if content is None:
            return ""
        if len(content) > self._left:
            self.num_left_out += 1
            return ""
        self._left -= len(content)
        self.num_given += 1
        return f"data:{_media_type(utterance_id, content)};base64,{base64.b64encode(content).decode()}"


def _media_type(utterance_id: str, content: bytes) -> str:
    for magic, media_type in _TYPES.items():
        if content.startswith(magic):
            return media_type
    raise ReportError(
        f"clip of {utterance_id}: begins with {content[:4]!r}; expected WAV, FLAC, Ogg or MP3 with an ID3 tag"
    )
