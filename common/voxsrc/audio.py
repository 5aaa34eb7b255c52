"""Recordings to waveforms, in process: wav, flac, ogg and mp3 by libsndfile, AAC and WebM by FFmpeg.

The format is told from the bytes, never from the file's name. Letter: W samples.
"""

import io
import struct
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import soundfile
from numpy.typing import NDArray

from voxsrc.audio_ffmpeg import decode_with_ffmpeg
from voxsrc.audio_format import end_of_id3, ffmpeg_demuxer
from voxsrc.errors import AudioError
from voxsrc.mp3_frames import begins_mp3, frames_alone, mp3_goes_on, states_length
from voxsrc.whole_files import (
    UNKNOWN_WAV_SIZES,
    check_flac,
    check_length,
    check_ogg,
    next_wav,
    whole_wav,
)

Float32Array = NDArray[np.float32]

# The quietest 16-bit sample that is not zero: a recording that never gets above it holds no speech.
_SILENCE_PEAK = 1.0 / 32_768
# Lossy decoders overshoot 1.0 by a little; more than this is audio stored on another scale.
_LARGEST_PEAK = 4.0
# Its size, that of its format chunk, code, channels, rate and bits per sample.
_WAV_HEADER = struct.Struct("<4xI8xIHHI6xH")
_WAV_PCM = 1
# Silence in flac, the densest of all, has 4,681; a damaged header may declare terabytes.
_MOST_SAMPLES_PER_BYTE = 1 << 13
# Memory is asked for as samples come, not as a header declares; nearly every recording is one block.
_BLOCK_SAMPLES = 1 << 24
# libsndfile reads flac in pieces of this length, and one more only where a frame, or its last word, needs it.
_FLAC_PIECE_BYTES, _FLAC_WORD_BYTES = 1 << 13, 8
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
    if demuxer := ffmpeg_demuxer(data):
        return decode_with_ffmpeg(data, demuxer)
    return _decode_pcm16(data) or _decode_with_libsndfile(data)


def _decode_pcm16(data: bytes) -> tuple[Float32Array, int] | None:
    """A whole 16-bit wav file, VoxCeleb1's own form, with less to do than by libsndfile; None for others."""
    if len(data) < _WAV_HEADER.size or data[:4] != b"RIFF" or data[8:16] != b"WAVEfmt ":
        return None
    file_size, size, code, num_channels, rate_hz, num_bits = _WAV_HEADER.unpack_from(data)
    if code != _WAV_PCM or num_bits != 16 or not num_channels:
        return None
    position = 20 + size + size % 2
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        if name == b"data":
            end = position + 8 + size
            if size in UNKNOWN_WAV_SIZES or end > len(data):
                return None
            if end < len(data) and next_wav(data, 8 + file_size, end):
                return None
            count = size // (2 * num_channels) * num_channels
            check_length(count)
            levels = np.frombuffer(data, "<i2", count, position + 8)
            samples = levels.astype(np.float32)
            samples *= np.float32(1.0 / 32_768)
            return np.ascontiguousarray(samples.reshape(-1, num_channels).T), rate_hz
        position += 8 + size + size % 2
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
    data = whole_wav(data)
    check_ogg(data)
    source = io.BytesIO(data)
    try:
        with _ForwardReader(source) as file:
            declared = file.frames
            if declared > len(data) * _MOST_SAMPLES_PER_BYTE:
                raise AudioError(
                    "undecodable", f"the header declares {declared} samples in {len(data)} bytes"
                )
            check_length(declared * file.channels)
            blocks = file.blocks_of(declared)
            rate_hz = int(file.samplerate)
    except soundfile.LibsndfileError as error:
        if begins_mp3(data) and not states_length(data):  # as zeros behind the last frame are an error to it
            return _decode_mp3_frames(data)
        found = f"{error.error_string} (the file begins with {data[:8].hex(' ')})"
        raise AudioError("undecodable", found) from error
    samples = np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
    if len(samples) < declared:
        if file.format == "MP3" and not states_length(data):
            return _decode_mp3_frames(data)
        raise AudioError("truncated", f"{len(samples)} samples of {declared} that the header declares")
    read_to = source.tell()
    if data.startswith(b"fLaC", end_of_id3(data)):
        last_piece = (read_to - 1) // _FLAC_PIECE_BYTES * _FLAC_PIECE_BYTES
        check_flac(data, last_piece - _FLAC_WORD_BYTES)
    elif read_to < len(data) and file.format == "MP3" and mp3_goes_on(data, read_to):
        return _decode_mp3_frames(data)
    return np.ascontiguousarray(samples.T), rate_hz


def _decode_mp3_frames(data: bytes) -> tuple[Float32Array, int]:
    """An mp3 file with more or fewer samples than its beginning leads a decoder to expect.

    No header says how long it is, and its bit rate changes or tags count as audio; or several were joined.
    """
    try:
        return decode_with_ffmpeg(frames_alone(data), "mp3")
    except AudioError as error:
        raise AudioError(
            error.reason,
            f"not all of its mp3 frames can be read as one recording ({error.detail}); if these are several "
            "mp3 files joined, store each as a file of its own",
        ) from error
