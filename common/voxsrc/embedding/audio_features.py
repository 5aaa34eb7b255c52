"""Log-mel features straight from audio, one utterance after another. Letters: T frames, F mel bands."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from voxsrc.audio import decode
from voxsrc.corpus import Utterance
from voxsrc.embedding.embeddings import Float32Array
from voxsrc.errors import AudioError
from voxsrc.features import FbankSpec
from voxsrc.features.scipy_log_mel import LogMelExtractor
from voxsrc.sources import Member, Readable


@dataclass(frozen=True)
class HeardUtterance:
    """One utterance's file.

    Attributes:
        position: Place of the utterance among those asked for.
        key: SHA-256 of the file, hexadecimal, its sample rate in Hz and number of channels: `1f…-16000-1`.
            What is cached by it tells the format without being decoded again.
        features: (T, F) float32 in nat; None if they are known already.
    """

    position: int
    key: str
    features: Float32Array | None


@dataclass
class AudioReport:
    """What was found on the way.

    Attributes:
        reasons: Utterances that cannot be used, with `code: detail`.
        resampled: How many had another sample rate than the features', by rate in Hz.
        num_downmixed: How many had several channels, which were averaged.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    resampled: Counter[int] = field(default_factory=Counter)
    num_downmixed: int = 0

    def count(self, rate_hz: int, num_channels: int, spec: FbankSpec) -> None:
        """Takes in the format of one usable file."""
        if rate_hz != spec.sample_rate_hz:
            self.resampled[rate_hz] += 1
        self.num_downmixed += num_channels > 1

    def notes(self, spec: FbankSpec) -> list[str]:
        """For people, one sentence each."""
        found = []
        for rate_hz, count in sorted(self.resampled.items()):
            hears = (
                f"; they have no energy above {rate_hz / 2:g} Hz, the features reach {spec.high_hz:g} Hz: "
                "scores with them are unreliable"
                if rate_hz / 2 < spec.high_hz
                else ""
            )
            found.append(f"{count} utterances resampled from {rate_hz} to {spec.sample_rate_hz} Hz{hears}")
        if self.num_downmixed:
            found.append(f"{self.num_downmixed} utterances of several channels averaged to one")
        return found


def read_utterances(
    source: Readable,
    pairs: Sequence[tuple[Utterance, Member]],
    spec: FbankSpec,
    known: Iterable[str],
    report: AudioReport,
) -> Iterator[HeardUtterance]:
    """Reads files in the source's own order, which a compressed tar needs.

    Args:
        source: Where they are.
        pairs: Utterances with their files, in the order asked for.
        spec: Of the features.
        known: Keys of files that need no features.
        report: Takes what is found; unusable utterances are only there.

    Raises:
        CorpusError: If the source as a whole is damaged.
        StorageError: If it cannot be read.
    """
    extract = LogMelExtractor(spec)
    key_of = {key.partition("-")[0]: key for key in known}
    order = sorted(range(len(pairs)), key=lambda position: pairs[position][1].place)
    contents = source.read_all(pairs[position][1] for position in order)
    for position, content in zip(order, contents, strict=True):
        utterance_id = pairs[position][0].utterance_id
        try:
            if isinstance(content, AudioError):
                raise content
            content_hash = hashlib.sha256(content).hexdigest()
            if key := key_of.get(content_hash):
                _, known_rate, known_channels = key.split("-")
                report.count(int(known_rate), int(known_channels), spec)
                yield HeardUtterance(position, key, None)
                continue
            recording = decode(content, sample_rate_hz=spec.sample_rate_hz)
            features = extract(recording.waveform)
        except AudioError as error:
            report.reasons[utterance_id] = str(error)
            continue
        rate_hz, num_channels = recording.source_rate_hz, recording.num_channels
        report.count(rate_hz, num_channels, spec)
        yield HeardUtterance(position, f"{content_hash}-{rate_hz}-{num_channels}", features)
