"""Recordings to waveforms, in process: wav, flac, ogg and mp3 by libsndfile, AAC and WebM by FFmpeg.

The format is told from the bytes, never from the file's name, and FFmpeg is given the one demuxer that
fits, so that a hostile file cannot make it open other files or addresses. Letter: W samples.
"""

import io
import re
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
from voxsrc.whole_files import UNKNOWN_WAV_SIZES, check_matroska, check_mp4, check_ogg, check_wav

Float32Array = NDArray[np.float32]

# The quietest 16-bit sample that is not zero: a recording that never gets above it holds no speech.
_SILENCE_PEAK = 1.0 / 32_768
# Lossy decoders overshoot 1.0 by a little; more than this is audio stored on another scale.
_LARGEST_PEAK = 4.0
# A declared duration may exceed the decoded one by the encoder's padding: a few frames of 1,024 samples.
_DURATION_TOLERANCE_S = 0.2
_SHORTEST_WAV_HEADER = 36
_WAV_PCM = 1
# Silence in flac, the densest of all, has 4,681; a damaged header may declare terabytes.
_MOST_SAMPLES_PER_BYTE = 1 << 13
# Of all channels: 4 GiB of float32, 18.6 hours at 16 kHz or 3.1 of stereo at 48 kHz.
_MOST_SAMPLES = 1 << 30
# Memory is asked for as samples come, not as a header declares; nearly every recording is one block.
_BLOCK_SAMPLES = 1 << 24
_DURATION_TAG = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_WHOLENESS_CHECKS = {"mov": check_mp4, "matroska": check_matroska}
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
        AudioError: `empty`, `undecodable` (also: an unknown format, more than 2³⁰ samples in all channels,
            too little memory), `truncated`, `non_finite`, `out_of_range`, `silent` or `too_short`.
    """
    if not data:
        raise AudioError("empty", "the file has no bytes")
    try:
        return _recording(data, sample_rate_hz, min_duration_s)
    except AudioError:
        raise
    except MemoryError as error:
        raise AudioError("undecodable", f"not enough memory to decode its {len(data)} bytes") from error
    except Exception as error:
        # What a decoder makes of one file must not end the extraction of a million others.
        raise AudioError("undecodable", f"{type(error).__name__}: {error} ({len(data)} bytes)") from error


def _recording(data: bytes, sample_rate_hz: int, min_duration_s: float) -> Recording:
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
            if size in UNKNOWN_WAV_SIZES or position + 8 + size > len(data):
                return None
            count = size // (2 * num_channels) * num_channels
            _check_length(count)
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


class _ForwardReader(soundfile.SoundFile):  # type: ignore[misc]  # soundfile ships no types
    """Reads a file from its beginning to its end.

    soundfile seeks to where it is after every read, which spoils what an mp3 decoder gives next, and is
    impossible in GSM 6.10, G.721, G.723 and NMS ADPCM.
    """

    def seekable(self) -> bool:
        return False

    def blocks_of(self, num_frames: int) -> list[Float32Array]:
        """Blocks (W, channels) of at most `num_frames` W in all, fewer if the file ends before."""
        most = max(1, _BLOCK_SAMPLES // self.channels)
        blocks: list[Float32Array] = []
        while True:
            wanted = min(num_frames, most)
            blocks.append(self.read(wanted, dtype="float32", always_2d=True))
            num_frames -= wanted
            if not num_frames or len(blocks[-1]) < wanted:
                return blocks


def _decode_with_libsndfile(data: bytes) -> tuple[Float32Array, int]:
    """Samples (channels, W) float32 and the sample rate."""
    check_wav(data)
    check_ogg(data)
    try:
        with _ForwardReader(io.BytesIO(data)) as file:
            declared = file.frames
            if declared > len(data) * _MOST_SAMPLES_PER_BYTE:
                raise AudioError(
                    "undecodable", f"the header declares {declared} samples in {len(data)} bytes"
                )
            _check_length(declared * file.channels)
            blocks = file.blocks_of(declared)
            rate_hz = int(file.samplerate)
    except soundfile.LibsndfileError as error:
        found = f"{error.error_string} (the file begins with {data[:8].hex(' ')})"
        raise AudioError("undecodable", found) from error
    samples = np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
    if len(samples) < declared:
        raise AudioError("truncated", f"{len(samples)} samples of {declared} that the header declares")
    return np.ascontiguousarray(samples.T), rate_hz


def _check_length(num_samples: int) -> None:
    """Refuses more samples, those of all channels, than memory should be asked for."""
    if num_samples > _MOST_SAMPLES:
        raise AudioError(
            "undecodable",
            f"{num_samples} samples in all channels, by a damaged header perhaps; at most {_MOST_SAMPLES} "
            "are decoded: cut a longer recording into parts",
        )


def _decode_with_ffmpeg(data: bytes, demuxer: str) -> tuple[Float32Array, int]:
    """Samples (channels, W) float32 and the sample rate."""
    if demuxer in _WHOLENESS_CHECKS:
        _WHOLENESS_CHECKS[demuxer](data)
    try:
        # Titles and comments in another encoding than UTF-8 are no reason to reject the audio.
        with av.open(io.BytesIO(data), "r", format=demuxer, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise AudioError("undecodable", f"a {demuxer} file without an audio stream")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise AudioError("undecodable", f"a {demuxer} file whose audio codec FFmpeg does not know")
            stream.codec_context.thread_count = 1
            declared_s = _duration_s(container, stream, demuxer)
            blocks, num_samples = list[Float32Array](), 0
            for frame in container.decode(stream):
                blocks.append(_planes(frame))
                num_samples += blocks[-1].size
                if num_samples > _MOST_SAMPLES:
                    break
            _check_length(num_samples)
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


def _duration_s(container: av.container.InputContainer, stream: av.AudioStream, demuxer: str) -> float:
    """How long a file says that its stream of audio is, 0 if it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if demuxer != "matroska":
        return 0.0
    # Matroska states when the longest of all streams ends; most writers add a tag on when each one ends.
    if tag := _DURATION_TAG.fullmatch(stream.metadata.get("DURATION", "")):
        end_s = 3600.0 * int(tag[1]) + 60.0 * int(tag[2]) + float(tag[3])
    elif len(container.streams) == 1:
        end_s = (container.duration or 0) / av.time_base
    else:
        return 0.0
    return end_s - max(0.0, float((stream.start_time or 0) * (stream.time_base or 0)))


def _planes(frame: av.AudioFrame) -> Float32Array:
    """One decoded frame as (channels, W) float32."""
    if frame.format.name != "fltp":
        return _planes(av.audio.resampler.AudioResampler(format="fltp").resample(frame)[0])
    # PyAV's planes are buffers, though their stubs do not say so.
    buffers = cast("tuple[memoryview, ...]", frame.planes)
    planes = [np.frombuffer(buffer, np.float32, frame.samples) for buffer in buffers]
    return np.stack(planes) if len(planes) > 1 else planes[0][None]
