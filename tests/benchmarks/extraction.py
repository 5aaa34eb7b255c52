"""Measures extraction and feature sets against the issue's targets; prints one table.

    python tests/benchmarks/extraction.py [--audio DIR --list FILE] [--json FILE] [--quick]

Comparisons run in turn, A B A B …, and ratios are medians over the pairs: compare them, not absolute
figures, between machines. All rows but those that need two cores stay on one. All files are in the page
cache; both sides write to the same scratch folder. Linux only. Needs the train and feature-extractor
extras, and `ffmpeg`, `tar` and `pigz` for the original's way.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from machine import Machine, describe, pin_to_one_core

if TYPE_CHECKING:
    from bench import Bench
    from report import Row

_SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
_GROUPS = ("compressed", "wav", "log_mel", "footprint", "memory", "reading", "crops", "workers")


def main() -> None:
    """Measures, prints, writes."""
    parsed = _parse()
    machine = pin_to_one_core()
    # Only now: NumPy and torch count the cores that they may use when they are imported.
    import torch
    from bench import QUICK, Bench, Effort
    from material import choose
    from report import table, write_json

    torch.set_num_threads(1)
    effort = QUICK if parsed.quick else Effort()
    if parsed.minutes:
        effort = replace(effort, minutes=parsed.minutes)
    rows = []
    before = describe(machine)
    with tempfile.TemporaryDirectory(prefix="voxsrc-benchmark-", dir=parsed.scratch) as scratch:
        audio, waveforms = choose(parsed.audio, parsed.list, effort.minutes, Path(scratch))
        for row in _rows(Bench(machine, audio, waveforms, Path(scratch), effort), parsed.only):
            print(f"measured: {row.title}", file=sys.stderr, flush=True)
            rows.append(row)
    conditions = {
        **before,
        "load_average_after": list(os.getloadavg()),
        "quick": parsed.quick,
        "audio_minutes": audio.seconds / 60,
        "num_utterances": len(audio.utterances),
    }
    print(f"{_summary(machine, conditions)}\n\n{table(rows)}")
    if parsed.json:
        write_json(parsed.json, rows, conditions)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audio", type=Path, default=_SAMPLES, help="folder (default: the bundled samples)")
    parser.add_argument("--list", type=Path, help="utterance list (default: train_list.txt in --audio)")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument(
        "--quick", action="store_true", help="half a minute of audio: only shows that it runs"
    )
    parser.add_argument("--minutes", type=float, help="audio to measure on (default: 20, or all if less)")
    parser.add_argument(
        "--only", nargs="+", choices=_GROUPS, default=_GROUPS, help="groups of rows to measure"
    )
    parser.add_argument("--scratch", type=Path, help="folder for some 500 MB of temporary files")
    parsed = parser.parse_args()
    parsed.list = parsed.list or parsed.audio / "train_list.txt"
    for path in (parsed.audio, parsed.list):
        if not path.exists():
            parser.error(f"{path} does not exist; give --audio a folder and --list an utterance list")
    return parsed


def _rows(bench: "Bench", groups: list[str]) -> "Iterator[Row]":
    import process_rows
    import set_rows
    import speed_rows

    for group, measure in (
        ("compressed", speed_rows.compressed_rows),
        ("wav", speed_rows.wav_rows),
        ("log_mel", speed_rows.log_mel_rows),
    ):
        if group in groups:
            yield from measure(bench)
    theirs = set_rows.OriginalArchive(bench) if {"footprint", "reading", "crops"} & set(groups) else None
    if theirs and "footprint" in groups:
        yield from set_rows.footprint_rows(bench, theirs)
    if {"memory", "reading", "crops"} & set(groups):
        large_set = bench.fresh_folder("large-set")
        yield process_rows.memory_row(bench, large_set)
        yield process_rows.mapping_row(bench, large_set)
        if theirs and "reading" in groups:
            yield from set_rows.reading_rows(bench, large_set, theirs)
        if theirs and "crops" in groups:
            yield from set_rows.random_access_rows(bench, large_set, theirs)
    if "workers" in groups:
        yield from process_rows.worker_rows(bench)


def _summary(machine: Machine, conditions: dict[str, object]) -> str:
    before, after = conditions["load_average"], conditions["load_average_after"]
    return (
        f"{conditions['cpu']}, {len(machine.cores)} core(s); {conditions['num_utterances']} utterances, "
        f"{conditions['audio_minutes']:.1f} min; load average before {before}, after {after}"
        + ("; quick: the figures mean nothing" if conditions["quick"] else "")
    )


if __name__ == "__main__":
    main()
