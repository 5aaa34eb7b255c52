"""The estimate of a dry run closes what it opened, also if the audio turns out to be damaged."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from feature_extractor import estimate as estimation
from feature_extractor.options import ExtractionOptions
from feature_extractor.plan import PlannedUtterance
from voxsrc.corpus import Utterance
from voxsrc.errors import CorpusError
from voxsrc.sources import Member, ReadResult


class DamagedSource:
    """An archive that ends in the middle."""

    is_closed = False

    def read_all(self, members: Iterable[Member]) -> Iterator[ReadResult]:
        raise CorpusError("a.tar ends in the middle")
        yield b""

    def close(self) -> None:
        self.is_closed = True


def test_a_damaged_archive_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DamagedSource()
    monkeypatch.setattr(estimation, "open_sources", lambda uris: source)
    options = ExtractionOptions(audio_uris=("a.tar",))
    planned = PlannedUtterance(Utterance("a/s/1.wav", "a", "s"), Member("a/s/1.wav", 10))
    with pytest.raises(CorpusError, match="ends in the middle"):
        estimation.estimate(options, [[planned]], 1)
    assert source.is_closed
