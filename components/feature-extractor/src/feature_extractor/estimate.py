"""What an extraction would make and take, from a few utterances spread over the corpus."""

import contextlib
import time
from collections import Counter
from collections.abc import Sequence

from feature_extractor.options import ExtractionOptions
from feature_extractor.plan import PlannedUtterance
from voxsrc.audio import decode
from voxsrc.errors import AudioError
from voxsrc.feature_set.encoding import compress, time_delta
from voxsrc.features.scipy_log_mel import LogMelExtractor
from voxsrc.sources import open_sources

_SAMPLED = 32


def estimate(
    options: ExtractionOptions, shards: Sequence[Sequence[PlannedUtterance]], num_workers: int
) -> str:
    """Decodes and extracts a few utterances and extrapolates; for people to read."""
    planned = [utterance for shard in shards for utterance in shard]
    sampled = planned[:: max(1, len(planned) // _SAMPLED)][:_SAMPLED]
    log_mel = LogMelExtractor(options.spec)
    reasons: Counter[str] = Counter()
    seconds, stored_bytes, audio_bytes = 0.0, 0, 0
    began = time.perf_counter()
    with contextlib.closing(open_sources(options.audio_uris)) as source:
        for utterance, content in zip(sampled, source.read_all(p.member for p in sampled), strict=True):
            try:
                if isinstance(content, AudioError):
                    raise content
                recording = decode(
                    content, sample_rate_hz=options.spec.sample_rate_hz, min_duration_s=options.min_duration_s
                )
                levels, _ = options.encoding.quantise(log_mel(recording.waveform))
            except AudioError as error:
                reasons[error.reason] += 1
                continue
            except MemoryError:
                reasons["too_large"] += 1
                continue
            seconds += len(recording.waveform) / options.spec.sample_rate_hz
            stored_bytes += len(compress(time_delta(levels).tobytes()))
            audio_bytes += utterance.member.size
        took_s = time.perf_counter() - began
    rejected = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "none"
    lines = [f"of {len(sampled)} utterances tried, rejected: {rejected}"]
    if audio_bytes:
        copies = 1 + len(options.speeds)
        scale = sum(p.member.size for p in planned) / audio_bytes * copies
        lines.append(
            f"about {scale * seconds / 3600:,.1f} h of audio → "
            f"{scale * stored_bytes / 1e6:,.1f} MB of features, "
            f"{scale * took_s / max(num_workers, 1) / 60:,.1f} min with {num_workers} worker(s) at "
            f"{seconds / took_s:,.0f} × real time each"
        )
    lines.append("dry run: nothing was written")
    return "\n".join(lines)
