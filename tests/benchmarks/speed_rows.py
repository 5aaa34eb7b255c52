"""Rows on one core: audio to features, end to end and the log-mel alone."""

import numpy as np
import original
import ours
from bench import Bench
from material import Audio, as_wav, joined, repeated
from report import Row, Target, rate_row
from timing import alternate

from voxsrc.features import preset
from voxsrc.features.scipy_log_mel import LogMelExtractor

_COMPRESSED_TARGET, _WAV_TARGET, _LOG_MEL_TARGET = Target(20), Target(4), Target(1.5)
_IN_PROCESS = "one core, without the interpreter's start"
_AS_PROCESS = "our side as a whole process"


def compressed_rows(bench: Bench) -> list[Row]:
    """Compressed audio → finished feature set."""
    audio = bench.audio
    kind = audio.files[0].suffix.removeprefix(".")
    mean_s = audio.seconds / len(audio.utterances)
    names = {
        "compressed": f"{kind} → feature set ({mean_s:.1f} s files; {_IN_PROCESS})",
        "compressed_process": f"the same, {_AS_PROCESS}",
        "compressed_joined": f"m4a joined to ≥ {bench.effort.joined_s:g} s → feature set ({_IN_PROCESS})",
    }
    reason = original.missing_programs(decodes=True)
    if reason:
        return [Row(name, title, skipped=reason) for name, title in names.items()]
    longer = joined(audio, bench.waveforms, bench.effort.joined_s, bench.scratch / "joined")
    return [
        _end_to_end(bench, "compressed", names["compressed"], audio, _COMPRESSED_TARGET),
        _end_to_end(bench, "compressed_process", names["compressed_process"], audio, None),
        # Fewer, longer files: the original starts fewer processes for the same audio.
        _end_to_end(bench, "compressed_joined", names["compressed_joined"], longer, None),
    ]


def wav_rows(bench: Bench) -> list[Row]:
    """16 kHz PCM16 wav → finished feature set."""
    names = {
        "wav": f"wav → feature set ({bench.effort.wav_hours:g} h; {_IN_PROCESS})",
        "wav_process": f"the same, {_AS_PROCESS}",
    }
    reason = original.missing_programs(decodes=False)
    if reason:
        return [Row(name, title, skipped=reason) for name, title in names.items()]
    # Enough that the few files of a set that are written whatever its size weigh as little as they do.
    wavs = as_wav(bench.audio, bench.waveforms, bench.scratch / "wav")
    audio = repeated(wavs, bench.effort.wav_hours, bench.scratch / "wav-repeated")
    targets = {"wav": _WAV_TARGET, "wav_process": None}
    return [_end_to_end(bench, name, title, audio, targets[name]) for name, title in names.items()]


def log_mel_rows(bench: Bench) -> list[Row]:
    """Waveforms in memory → log-mel."""
    return [_log_mel(bench, name) for name in ("voxceleb_trainer", "lfb40")]


def _end_to_end(bench: Bench, name: str, title: str, audio: Audio, target: Target | None) -> Row:
    ours_extract = ours.extract_as_process if name.endswith("_process") else ours.extract
    from_wav = name.startswith("wav")
    original_extract = original.extract_wavs if from_wav else original.extract_compressed
    # Imports, the page cache and FFmpeg's tables; all of the original's way would take a minute.
    ours_extract(audio, bench.fresh_folder("warm-up"))
    original_extract(audio.files[:3], bench.fresh_folder("warm-up"))
    pairs = alternate(
        lambda pair: ours_extract(audio, bench.fresh_folder(name)),
        lambda pair: original_extract(audio.files, bench.fresh_folder(f"{name}-original")),
        bench.effort.num_fast_pairs if from_wav else bench.effort.num_pairs,
        warm_up=False,
    )
    return rate_row(
        name,
        title,
        pairs,
        (audio.seconds, audio.seconds),
        reference_is="original",
        target=target,
        details={"audio_s": audio.seconds, "num_files": len(audio.utterances)},
    )


def _log_mel(bench: Bench, preset_name: str) -> Row:
    spec = preset(preset_name)
    extract, extract_theirs = LogMelExtractor(spec), original.log_mel(spec)
    difference = max(
        float(np.abs(extract(waveform) - extract_theirs(waveform).numpy().T).max())
        for waveform in bench.waveforms
    )
    pairs = alternate(
        lambda pair: [extract(waveform) for waveform in bench.waveforms],
        lambda pair: [extract_theirs(waveform) for waveform in bench.waveforms],
        bench.effort.num_fast_pairs,
    )
    return rate_row(
        f"log_mel_{preset_name}",
        f"log-mel alone, {preset_name} (values within {difference:.0e} nat)",
        pairs,
        (bench.audio.seconds, bench.audio.seconds),
        reference_is="torchaudio an utterance",
        target=_LOG_MEL_TARGET,
        details={"max_difference_nat": difference},
    )
