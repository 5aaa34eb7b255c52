"""Tiny synthetic recordings in every format. W samples."""

import io
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from voxsrc.audio import decode
from voxsrc.errors import AudioError

Float32Array = NDArray[np.float32]
Encoder = Callable[[Float32Array, int], bytes]


def tone(
    duration_s: float, rate_hz: int = 16_000, *, frequency_hz: float = 440.0, peak: float = 0.5
) -> Float32Array:
    """A sine, (W,) float32."""
    seconds = np.arange(round(duration_s * rate_hz)) / rate_hz
    return (peak * np.sin(2 * np.pi * frequency_hz * seconds)).astype(np.float32)


def noise(duration_s: float, rate_hz: int = 16_000, *, seed: int = 0, peak: float = 0.3) -> Float32Array:
    """Noise of 300 to 3,000 Hz, (W,) float32: lossy codecs keep it, and no shift of it looks like it."""
    num_samples = round(duration_s * rate_hz)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(num_samples))
    frequencies_hz = np.fft.rfftfreq(num_samples, 1 / rate_hz)
    spectrum[(frequencies_hz < 300) | (frequencies_hz > 3_000)] = 0
    samples = np.fft.irfft(spectrum, num_samples).astype(np.float32)
    return samples * np.float32(peak / np.abs(samples).max())


def encode_with_libsndfile(samples: Float32Array, rate_hz: int, container: str, subtype: str) -> bytes:
    """A file of samples (W,) or (W, channels); `container` and `subtype` as in soundfile."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=container, subtype=subtype)
    return file.getvalue()


def encode_with_ffmpeg(
    samples: Float32Array, rate_hz: int, container: str, codec: str, *, moov_first: bool = False
) -> bytes:
    """A file of samples (W,) or (W, channels) at 96 kbit/s; `container` and `codec` as in FFmpeg."""
    planes = np.ascontiguousarray(np.atleast_2d(samples.T))
    options = {"movflags": "faststart"} if moov_first else {}
    # To bring `moov` to the front, FFmpeg reads the file again by its name.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "encoded")
        with av.open(str(path), "w", format=container, options=options) as output:
            stream = output.add_stream(codec, rate=rate_hz)
            assert isinstance(stream, av.AudioStream)
            stream.bit_rate = 96_000
            stream.layout = "mono" if len(planes) == 1 else "stereo"
            frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=stream.layout.name)
            frame.sample_rate, frame.pts = rate_hz, 0
            output.mux([*stream.encode(frame), *stream.encode(None)])
        return path.read_bytes()


def encode_beside_video(
    samples: Float32Array,
    container: str,
    audio_codec: str,
    video_codec: str,
    *,
    video_s: float,
    start_s: float,
) -> bytes:
    """A file with a stream of video (32 × 32, 25 pictures a second) and one of audio.

    Args:
        samples: (W,) at 48 kHz.
        container: As in FFmpeg, like both codecs.
        audio_codec: Of the samples.
        video_codec: Of the video.
        video_s: How long the video is.
        start_s: Where in the file the samples begin.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        video, audio = output.add_stream(video_codec, rate=25), output.add_stream(audio_codec, rate=48_000)
        assert isinstance(video, av.VideoStream)
        assert isinstance(audio, av.AudioStream)
        video.width = video.height = 32
        audio.layout = "mono"
        packets = []
        for number in range(round(25 * video_s)):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            picture.pts = number
            packets += video.encode(picture)
        packets += video.encode(None)
        frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        frame.sample_rate, frame.pts = 48_000, round(48_000 * start_s)
        frame.time_base = Fraction(1, 48_000)
        packets += audio.encode(frame)
        packets += audio.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return file.getvalue()


def reason_of(data: bytes, **options: float) -> str:
    """Why `voxsrc.audio.decode` rejects a file, which it must."""
    with pytest.raises(AudioError) as caught:
        decode(data, **options)  # type: ignore[arg-type]
    return caught.value.reason


def wav(samples: Float32Array, rate_hz: int = 16_000, subtype: str = "PCM_16") -> bytes:
    """A wav file."""
    return encode_with_libsndfile(samples, rate_hz, "WAV", subtype)


def m4a(samples: Float32Array, rate_hz: int = 16_000, *, moov_first: bool = False) -> bytes:
    """AAC in MP4, as VoxCeleb2 has it; the index `moov` behind or before the audio."""
    return encode_with_ffmpeg(samples, rate_hz, "ipod", "aac", moov_first=moov_first)


LOSSLESS: dict[str, Encoder] = {
    "wav": wav,
    "wav-24": lambda samples, rate_hz: wav(samples, rate_hz, "PCM_24"),
    "wav-float": lambda samples, rate_hz: wav(samples, rate_hz, "FLOAT"),
    "wav-rf64": lambda samples, rate_hz: encode_with_libsndfile(samples, rate_hz, "RF64", "PCM_16"),
    "flac": lambda samples, rate_hz: encode_with_libsndfile(samples, rate_hz, "FLAC", "PCM_16"),
}
LOSSY: dict[str, Encoder] = {
    "mp3": lambda samples, rate_hz: encode_with_libsndfile(samples, rate_hz, "MP3", "MPEG_LAYER_III"),
    "ogg": lambda samples, rate_hz: encode_with_libsndfile(samples, rate_hz, "OGG", "VORBIS"),
    "opus": lambda samples, rate_hz: encode_with_libsndfile(samples, rate_hz, "OGG", "OPUS"),
    "m4a": m4a,
    "m4a-moov-first": lambda samples, rate_hz: m4a(samples, rate_hz, moov_first=True),
    "aac": lambda samples, rate_hz: encode_with_ffmpeg(samples, rate_hz, "adts", "aac"),
    "mka": lambda samples, rate_hz: encode_with_ffmpeg(samples, rate_hz, "matroska", "aac"),
    "webm": lambda samples, rate_hz: encode_with_ffmpeg(samples, rate_hz, "webm", "libopus"),
}
