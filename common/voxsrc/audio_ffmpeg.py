"""Recordings to waveforms by FFmpeg, in process.

It is given the one demuxer that fits, so that a hostile file cannot make it open other files or addresses.
Letter: W samples.
"""

import io
import re
from typing import cast

import av
import av.audio.resampler
import numpy as np
from numpy.typing import NDArray

from voxsrc import whole_files
from voxsrc.errors import AudioError
from voxsrc.whole_files import check_flac, check_length, check_matroska, check_mp4, check_ogg

Float32Array = NDArray[np.float32]

# A declared duration may exceed the decoded one by the encoder's padding: a few frames of 1,024 samples.
_DURATION_TOLERANCE_S = 0.2
_DURATION_TAG = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_WHOLENESS_CHECKS = {"mov": check_mp4, "matroska": check_matroska, "ogg": check_ogg, "flac": check_flac}
# Formats of frames alone, in which nothing says how long the audio is.
_WITHOUT_DURATION = ("aac", "mp3")


def decode_with_ffmpeg(data: bytes, demuxer: str) -> tuple[Float32Array, int]:
    """Samples (channels, W) float32 and the sample rate.

    Args:
        data: The file.
        demuxer: The one of FFmpeg's that reads it.

    Raises:
        AudioError: `undecodable` or `truncated`.
    """
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
            blocks, num_samples, rates_hz = list[Float32Array](), 0, set[int]()
            for frame in container.decode(stream):
                block = _planes(frame)
                blocks.append(block)
                rates_hz.add(frame.sample_rate)
                num_samples += block.size
                if num_samples > whole_files.MOST_SAMPLES:
                    break
            check_length(num_samples)
    except av.error.FFmpegError as error:
        raise AudioError("undecodable", f"FFmpeg: {error.strerror} ({demuxer}, {len(data)} bytes)") from error
    if not blocks:
        raise AudioError(
            "truncated" if declared_s else "undecodable", f"no audio in {len(data)} bytes ({demuxer})"
        )
    if len({len(block) for block in blocks}) > 1:
        raise AudioError("undecodable", f"its number of channels changes within the file ({demuxer})")
    if len(rates_hz) > 1:
        raise AudioError("undecodable", f"its sample rate changes within the file ({demuxer})")
    samples, rate_hz = np.concatenate(blocks, axis=1), rates_hz.pop()
    decoded_s = samples.shape[1] / rate_hz
    if demuxer not in _WITHOUT_DURATION and decoded_s < declared_s - _DURATION_TOLERANCE_S:
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
