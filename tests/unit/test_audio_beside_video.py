"""Audio in containers with other streams: how long it is, and whether all of it is there."""

import pytest

from audio_files import LOSSY, encode_beside_video, noise, reason_of
from voxsrc.audio import decode

BESIDE_VIDEO = [
    ("webm", "libopus", "libvpx"),
    ("matroska", "libopus", "mpeg4"),
    ("matroska", "aac", "mpeg4"),
    ("mp4", "aac", "mpeg4"),
]


def beside_video(*codecs: str, audio_s: float = 1.0, video_s: float = 2.0, start_s: float = 0.0) -> bytes:
    return encode_beside_video(noise(audio_s, 48_000), *codecs, video_s=video_s, start_s=start_s)


def of_unknown_size(data: bytes) -> bytes:
    """A Matroska file whose segment has no size, as one that was written into a pipe."""
    size_at = data.index(b"\x18\x53\x80\x67") + 4
    return data[:size_at] + b"\x01" + b"\xff" * 7 + data[size_at + 8 :]


@pytest.mark.parametrize("codecs", BESIDE_VIDEO)
def test_video_may_outlast_the_audio(codecs: tuple[str, str, str]) -> None:
    assert len(decode(beside_video(*codecs)).waveform) == pytest.approx(16_000, abs=700)


@pytest.mark.parametrize("codecs", BESIDE_VIDEO[:3])
def test_audio_in_matroska_may_begin_late(codecs: tuple[str, str, str]) -> None:
    data = beside_video(*codecs, start_s=0.9)
    assert len(decode(data).waveform) == pytest.approx(16_000, abs=700)
    assert reason_of(of_unknown_size(data)[: int(0.6 * len(data))]) == "truncated"


@pytest.mark.parametrize("fraction", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("codecs", BESIDE_VIDEO)
def test_cut_files_with_video_are_truncated(codecs: tuple[str, str, str], fraction: float) -> None:
    data = beside_video(*codecs, audio_s=2.0, video_s=1.0)
    assert reason_of(data[: int(fraction * len(data))]) == "truncated"


def test_each_way_in_which_a_matroska_file_says_how_long_it_is() -> None:
    tagged = beside_video("webm", "libopus", "libvpx", audio_s=2.0)
    untagged = tagged.replace(b"DURATION", b"LOCATION")
    alone = LOSSY["webm"](noise(2.0, 48_000), 48_000)
    alone_untagged = alone.replace(b"DURATION", b"LOCATION")
    for whole in (tagged, untagged, of_unknown_size(tagged), alone, of_unknown_size(alone_untagged)):
        assert len(decode(whole).waveform) == pytest.approx(32_000, abs=400)
        # By the segment's size, the tag, or the duration of the only stream.
        assert reason_of(whole[: int(0.7 * len(whole))]) == "truncated"
    # Nothing says when the audio of this one ends; its video's end must not be taken for it.
    silent_about_it = of_unknown_size(untagged)
    assert len(decode(silent_about_it[: int(0.7 * len(silent_about_it))]).waveform) < 28_000
