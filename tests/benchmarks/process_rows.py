"""Rows on whole processes: several workers, and memory."""

import statistics
from pathlib import Path

import child
import ours
from bench import Bench
from material import SAMPLE_RATE_HZ, Audio, as_tar, repeated
from report import Row, Target
from timing import Pairs, Spent, spend

_TWO_WORKERS = Target(1.8)
_PEAK = Target(1024, "ours", "at most")
_MAPPED = Target(0.1, "ratio", "at most")


def worker_rows(bench: Bench) -> list[Row]:
    """Two workers against one, with and without the start of interpreter and fork server."""
    hours = bench.effort.scaling_hours
    names = {
        "two_workers": f"2 workers against 1 ({hours:g} h; fork server running)",
        "two_workers_process": "the same, whole processes",
    }
    if len(bench.machine.cores) < 2:
        reason = "this process may use one core alone"
        return [Row(name, title, target=_TWO_WORKERS, skipped=reason) for name, title in names.items()]
    audio = repeated(bench.audio, hours, bench.fresh_folder("repeated"))
    return [
        _scaling_row("two_workers", names["two_workers"], audio, _warm(bench, audio)),
        _scaling_row("two_workers_process", names["two_workers_process"], audio, _cold(bench, audio)),
    ]


def memory_row(bench: Bench, set_folder: Path) -> Row:
    """Peak memory of the process that plans, extracts and finishes a set of many utterances from one tar."""
    durations_s = [len(waveform) / SAMPLE_RATE_HZ for waveform in bench.waveforms]
    count = bench.effort.tar_utterances
    tar = as_tar(bench.audio, durations_s, count, bench.scratch / "many.tar")
    found = child.extract(bench.machine, [ours.arguments(tar, set_folder)])
    return Row(
        "memory_worker",
        f"peak resident memory, {count:,} utterances ({tar.seconds / 3600:.1f} h) from one tar",
        "MiB",
        ours=found["peak_mib"],
        reference=found["start_mib"],
        reference_is="after the imports",
        target=_PEAK,
        details={
            "seconds": found["seconds"][0],
            "audio_s": tar.seconds,
            "tar_bytes": tar.root.stat().st_size,
        },
    )


def mapping_row(bench: Bench, set_folder: Path) -> Row:
    """Memory that opening a set as a memory map takes."""
    found = child.open_mapped(bench.machine, set_folder, bench.scratch / "child-cache")
    return Row(
        "memory_mmap",
        "resident memory that opening a memory map adds",
        "MiB",
        ours=found["growth_mib"],
        reference=found["frames_mib"],
        reference_is="all frames",
        ratio=found["growth_mib"] / found["frames_mib"],
        target=_MAPPED,
        details={"mapped_mib": found["mapped_mib"], "num_utterances": found["num_utterances"]},
    )


def _warm(bench: Bench, audio: Audio) -> Pairs:
    """Runs in one process, in turn; the first of each warms up."""
    commands = [
        ours.arguments(audio, bench.fresh_folder(f"workers{num_workers}"), num_workers=num_workers)
        for _ in range(bench.effort.num_pairs + 1)
        for num_workers in (2, 1)
    ]
    seconds = child.extract(bench.machine, commands)["seconds"][2:]
    # A running child's processor time is unknown.
    return Pairs([Spent(s, 0.0) for s in seconds[::2]], [Spent(s, 0.0) for s in seconds[1::2]])


def _cold(bench: Bench, audio: Audio) -> Pairs:
    pairs = Pairs()
    for _ in range(bench.effort.num_pairs):
        for num_workers, side in ((2, pairs.ours), (1, pairs.theirs)):
            folder = bench.fresh_folder(f"workers{num_workers}")
            command = ours.arguments(audio, folder, num_workers=num_workers)
            side.append(spend(lambda command=command: child.extract(bench.machine, [command])))  # type: ignore[misc]
    return pairs


def _scaling_row(name: str, title: str, audio: Audio, pairs: Pairs) -> Row:
    return Row(
        name,
        title,
        "× real time",
        ours=audio.seconds / pairs.ours_s,
        reference=audio.seconds / pairs.theirs_s,
        reference_is="1 worker",
        ratio=statistics.median(pairs.ratios),
        target=_TWO_WORKERS,
        details={
            "num_pairs": len(pairs.ratios),
            "ratio_min": min(pairs.ratios),
            "ratio_max": max(pairs.ratios),
            "ours_s": pairs.ours_s,
            "reference_s": pairs.theirs_s,
            "audio_s": audio.seconds,
        },
    )
