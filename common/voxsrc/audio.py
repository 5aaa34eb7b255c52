"""Recordings to waveforms, in process: wav, flac, ogg and mp3 by libsndfile, AAC and WebM by FFmpeg.

The format is told from the bytes, never from the file's name, and FFmpeg is given the one demuxer that
fits, so that a hostile file cannot make it open other files or addresses. Letter: W samples.
"""

import io
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import av.audio.resampler
import numpy as np
import soundfile
from numpy.typing import NDArray

from voxsrc.errors import AudioError

Float32Array = NDArray[np.float32]

# The quietest 16-bit sample that is not zero: a recording that never gets above it holds no speech.
_SILENCE_PEAK = 1.0 / 32_768
# Lossy decoders overshoot 1.0 by a little; more than this is audio stored on another scale.
_LARGEST_PEAK = 4.0
# A declared duration may exceed the decoded one by the encoder's padding: a few frames of 1,024 samples.
_DURATION_TOLERANCE_S = 0.2
_OGG_LAST_PAGE = 0x04
_SHORTEST_WAV_HEADER = 36
_WAV_PCM = 1
_UNKNOWN_WAV_SIZES = (0, 0xFFFF_FFFF, 0x7FFF_FFFF)
# Silence in flac, the densest of all, has 4,681; a damaged header may declare terabytes.
_MOST_SAMPLES_PER_BYTE = 1 << 13
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 1_000, 768_000


@dataclass(frozen=True)
class Recording:
    """One decoded recording.

    Attributes:
        waveform: (W,) float32 mono in [-1, 1] at the rate asked for.
        source_rate_hz: The sample rate that the file had.
        num_channels: The channels that the file had; several are averaged.
        num_clipped: Samples that lay outside [-1, 1] and were limited to it.
    """

    waveform: Float32Array
    source_rate_hz: int
    num_channels: int
    num_clipped: int


def decode(data: bytes, *, sample_rate_hz: int = 16_000, min_duration_s: float = 0.1) -> Recording:
    """Decodes one file's bytes to mono at `sample_rate_hz`.

    Raises:
        AudioError: `empty`, `undecodable` (also: an unknown format), `truncated`, `non_finite`,
            `out_of_range`, `silent` or `too_short`.
    """
    if not data:
        raise AudioError("empty", "the file has no bytes")
    samples, rate_hz = _decode(data)
    if not _LOWEST_RATE_HZ <= rate_hz <= _HIGHEST_RATE_HZ:
        raise AudioError(
            "undecodable", f"a sample rate of {rate_hz} Hz; expected {_LOWEST_RATE_HZ} to {_HIGHEST_RATE_HZ}"
        )
    num_channels = samples.shape[0]
    waveform = samples[0] if num_channels == 1 else samples.mean(axis=0, dtype=np.float32)
    if not len(waveform) or len(waveform) < min_duration_s * rate_hz:
        raise AudioError(
            "too_short", f"{len(waveform) / rate_hz:.3f} s, at least {min_duration_s:g} s expected"
        )
    peak = _checked_peak(waveform)
    if rate_hz != sample_rate_hz:
        waveform = resample(waveform, Fraction(sample_rate_hz, rate_hz))
        peak = _peak(waveform)
    num_clipped = 0
    if peak > 1.0:
        num_clipped = int(np.count_nonzero(np.abs(waveform) > 1.0))
        waveform = np.clip(waveform, -1.0, 1.0)
    return Recording(waveform, rate_hz, num_channels, num_clipped)


def resample(waveform: Float32Array, ratio: Fraction) -> Float32Array:
    """A waveform (W,) with `ratio` times as many samples, by a polyphase filter (Kaiser, β = 5)."""
    # SciPy's signal package takes most of a second to import, and VoxCeleb is at 16 kHz already.
    import scipy.signal

    resampled: Float32Array = scipy.signal.resample_poly(waveform, ratio.numerator, ratio.denominator)
    return resampled.astype(np.float32, copy=False)


def change_speed(waveform: Float32Array, speed: Fraction) -> Float32Array:
    """A waveform (W,) played `speed` times as fast, pitch and all, as sox's `speed` does."""
    return resample(waveform, 1 / speed)


def _peak(waveform: Float32Array) -> float:
    """The greatest magnitude; NaN if any sample is."""
    return max(float(waveform.max()), -float(waveform.min()))


def _checked_peak(waveform: Float32Array) -> float:
    """The greatest magnitude of a waveform that can hold speech; raises AudioError for others."""
    peak = _peak(waveform)
    if not np.isfinite(peak):
        raise AudioError("non_finite", "samples that are NaN or infinite")
    if peak > _LARGEST_PEAK:
        raise AudioError(
            "out_of_range",
            f"a peak of {peak:g}; expected samples in [-1, 1]: scale the audio and list it again",
        )
    if peak <= _SILENCE_PEAK:
        raise AudioError("silent", f"a peak of {peak:.2g}: there is no signal")
    return peak


def _decode(data: bytes) -> tuple[Float32Array, int]:
    """Samples (channels, W) float32 and the sample rate, by whatever reads these bytes."""
    demuxer = _ffmpeg_demuxer(data)
    if demuxer:
        return _decode_with_ffmpeg(data, demuxer)
    return _decode_pcm16(data) or _decode_with_libsndfile(data)


def _decode_pcm16(data: bytes) -> tuple[Float32Array, int] | None:
    """A whole 16-bit wav file, VoxCeleb1's own form, with less to do than by libsndfile; None for others."""
    if len(data) < _SHORTEST_WAV_HEADER or data[:4] != b"RIFF" or data[8:16] != b"WAVEfmt ":
        return None
    size, code, num_channels, rate_hz, _, _, num_bits = struct.unpack_from("<IHHIIHH", data, 16)
    if code != _WAV_PCM or num_bits != 16 or not num_channels:
        return None
    position = 20 + size + size % 2
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        if name == b"data":
            if size in _UNKNOWN_WAV_SIZES or position + 8 + size > len(data):
                return None
            count = size // (2 * num_channels) * num_channels
            levels = np.frombuffer(data, "<i2", count, position + 8)
            samples = levels.astype(np.float32)
            samples *= np.float32(1.0 / 32_768)
            return np.ascontiguousarray(samples.reshape(-1, num_channels).T), rate_hz
        position += 8 + size + size % 2
    return None


def _ffmpeg_demuxer(data: bytes) -> str | None:
    """FFmpeg's demuxer for these bytes, or None if libsndfile is to read them."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
        return "mov"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    # A flac stream whose header leaves its length open, which libsndfile cannot read to its end.
    if data[:4] == b"fLaC" and len(data) > 26 and data[21] & 0x0F == 0 and not any(data[22:26]):
        return "flac"
    # An ADTS header has the two layer bits at 0, where MPEG audio's (mp3) are not.
    if data[0] == 0xFF and len(data) > 1 and data[1] & 0xF6 == 0xF0:
        return "aac"
    return None


def _decode_with_libsndfile(data: bytes) -> tuple[Float32Array, int]:
    """Samples (channels, W) float32 and the sample rate."""
    _check_wav_is_whole(data)
    _check_ogg_is_whole(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            declared = file.frames
            if declared > len(data) * _MOST_SAMPLES_PER_BYTE:
                raise AudioError(
                    "undecodable", f"the header declares {declared} samples in {len(data)} bytes"
                )
            samples = file.read(dtype="float32", always_2d=True)
            rate_hz = int(file.samplerate)
    except soundfile.LibsndfileError as error:
        found = data[:8].hex(" ")
        raise AudioError("undecodable", f"{error.error_string} (the file begins with {found})") from error
    if len(samples) < declared:
        raise AudioError("truncated", f"{len(samples)} samples of {declared} that the header declares")
    return np.ascontiguousarray(samples.T), rate_hz


def _check_wav_is_whole(data: bytes) -> None:
    """libsndfile reads a cut wav file without a word, so compare its data chunk with the file's size."""
    if data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        return
    position, long_size = 12, None
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        if name == b"ds64" and position + 24 <= len(data):
            long_size = struct.unpack_from("<Q", data, position + 16)[0]
        if name == b"data":
            size = size if long_size is None else long_size
            if size not in _UNKNOWN_WAV_SIZES and position + 8 + size > len(data):
                raise AudioError(
                    "truncated", f"{len(data) - position - 8} bytes of {size} that the wav header declares"
                )
            return
        position += 8 + size + size % 2
    raise AudioError("truncated", "the wav file ends before its data chunk")


def _check_ogg_is_whole(data: bytes) -> None:
    """libsndfile reads a cut Ogg file without a word too, so walk its pages to the one marked as the last."""
    position, is_last = 0, False
    while data[position : position + 4] == b"OggS":
        num_segments = data[position + 26] if position + 26 < len(data) else 0
        body = position + 27 + num_segments
        end = body + sum(data[position + 27 : body])
        if end > len(data):
            raise AudioError("truncated", f"{len(data)} bytes; the Ogg page at {position} needs {end}")
        position, is_last = end, bool(data[position + 5] & _OGG_LAST_PAGE)
    if position and not is_last:
        raise AudioError(
            "truncated", f"the last Ogg page, which ends at {position}, is not marked as the last"
        )


def _check_mp4_is_whole(data: bytes) -> None:
    """A cut MP4 file may still decode in part, so walk its outermost boxes to the end of the file."""
    position = 0
    while position < len(data):
        size, name = struct.unpack_from(">I4s", data.ljust(position + 16, b"\0"), position)
        if size == 0:  # by definition: up to the end of the file
            return
        if size == 1:
            size = struct.unpack_from(">Q", data.ljust(position + 16, b"\0"), position + 8)[0]
        if size < 8 or position + size > len(data):
            box = name.decode("ascii", "replace")
            raise AudioError("truncated", f"{len(data)} bytes; the box {box!r} at {position} needs {size}")
        position += size


def _decode_with_ffmpeg(data: bytes, demuxer: str) -> tuple[Float32Array, int]:
    """Samples (channels, W) float32 and the sample rate."""
    if demuxer == "mov":
        _check_mp4_is_whole(data)
    try:
        # Titles and comments in another encoding than UTF-8 are no reason to reject the audio.
        with av.open(io.BytesIO(data), "r", format=demuxer, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise AudioError("undecodable", f"a {demuxer} file without an audio stream")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise AudioError("undecodable", f"a {demuxer} file whose audio codec FFmpeg does not know")
            stream.codec_context.thread_count = 1
            # Matroska has a duration of the whole file only.
            declared_s = float((stream.duration or 0) * (stream.time_base or 0)) or (
                (container.duration or 0) / av.time_base if demuxer == "matroska" else 0.0
            )
            blocks = [_planes(frame) for frame in container.decode(stream)]
            rate_hz = int(stream.codec_context.sample_rate)
    except av.error.FFmpegError as error:
        raise AudioError("undecodable", f"FFmpeg: {error.strerror} ({demuxer}, {len(data)} bytes)") from error
    if not blocks:
        raise AudioError(
            "truncated" if declared_s else "undecodable", f"no audio in {len(data)} bytes ({demuxer})"
        )
    if len({len(block) for block in blocks}) > 1:
        raise AudioError("undecodable", f"its number of channels changes within the file ({demuxer})")
    samples = np.concatenate(blocks, axis=1)
    decoded_s = samples.shape[1] / rate_hz
    if demuxer != "aac" and decoded_s < declared_s - _DURATION_TOLERANCE_S:
        raise AudioError("truncated", f"{decoded_s:.2f} s of {declared_s:.2f} s that the header declares")
    return samples, rate_hz


def _planes(frame: av.AudioFrame) -> Float32Array:
    """One decoded frame as (channels, W) float32."""
    if frame.format.name != "fltp":
        return _planes(av.audio.resampler.AudioResampler(format="fltp").resample(frame)[0])
    # PyAV's planes are buffers, though their stubs do not say so.
    buffers = cast("tuple[memoryview, ...]", frame.planes)
    planes = [np.frombuffer(buffer, np.float32, frame.samples) for buffer in buffers]
    return np.stack(planes) if len(planes) > 1 else planes[0][None]
