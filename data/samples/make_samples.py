#!/usr/bin/env python3
"""Makes the bundled sample corpus from a folder of real speech; standard library only.

Input: a folder with `train_list.txt`, `test_list.txt` (`speaker path`), `test_trials.txt` (`1|0 path path`)
and `provenance.tsv` (speaker, set, package, version, licence, kind, n_utts, seconds).
Output: `train/`, `test/` (byte for byte copies), the three lists and `ATTRIBUTION.md`. The same input
gives the same output, byte for byte: every choice is made by hash or by a total order.
"""

import argparse
import csv
import hashlib
import math
import re
import shutil
import struct
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# GPL, LGPL, BSD or Creative Commons only. The freeware of two games forbids their sale alone: not bundled.
ALLOWED_LICENCE = re.compile(r"^(GPL|LGPL|BSD|CC)-")

# Folders and blocks of a file system come on top: 8 MB on disk in all.
TRAIN_BYTES = 4_300_000
TEST_BYTES = 2_600_000
MIN_TRAIN_UTTERANCES = 3  # that a speaker must have; fewer teach a metric loss little
FEWEST_TRAIN_UTTERANCES = 4  # taken of a speaker who has them
MIN_TEST_SPEAKERS = 10
MIN_TEST_UTTERANCES = 2  # of a speaker, so that each can be a target
MAX_TEST_UTTERANCES = 8  # of a speaker, so that no one speaker makes most of the targets

Trial = tuple[str, str, str]  # label "1" or "0", path, path


@dataclass(frozen=True)
class Provenance:
    """Where a speaker's recordings come from: one line of `provenance.tsv`."""

    speaker: str
    package: str
    version: str
    licence: str
    kind: str


def main() -> int:
    """Parses the command line and makes the samples."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--realspeech", type=Path, required=True, help="folder of real speech to choose from")
    parser.add_argument("--output", type=Path, required=True, help="folder that receives the samples")
    args = parser.parse_args()
    try:
        make_samples(args.realspeech, args.output)
    except (OSError, ValueError) as error:
        print(f"make_samples: {error}", file=sys.stderr)
        return 2
    return 0


def make_samples(realspeech: Path, output: Path) -> None:
    """Chooses, copies and documents; replaces what an earlier run made in `output`."""
    provenance = read_provenance(realspeech / "provenance.tsv")
    train = choose_train(allowed_utterances(realspeech / "train_list.txt", provenance), realspeech)
    test_sizes = {
        path: (realspeech / path).stat().st_size
        for _, path in allowed_utterances(realspeech / "test_list.txt", provenance)
    }
    trials = [
        trial
        for trial in read_trials(realspeech / "test_trials.txt")
        if {trial[1], trial[2]} <= set(test_sizes)
    ]
    test_paths = choose_test(trials, test_sizes)
    trials = balance([trial for trial in trials if {trial[1], trial[2]} <= test_paths])
    used = {path for trial in trials for path in trial[1:]}
    test = sorted((speaker_of(path), path) for path in used)

    for fold, utterances in (("train", train), ("test", test)):
        shutil.rmtree(output / fold, ignore_errors=True)
        for _, path in utterances:
            (output / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(realspeech / path, output / path)
        lines = "".join(f"{speaker} {path}\n" for speaker, path in utterances)
        (output / f"{fold}_list.txt").write_text(lines, encoding="utf-8")
    (output / "test_trials.txt").write_text(
        "".join(f"{' '.join(trial)}\n" for trial in trials), encoding="utf-8"
    )
    (output / "ATTRIBUTION.md").write_text(attribution(train + test, provenance, output), encoding="utf-8")
    print(
        f"train: {len(train)} utterances of {len({s for s, _ in train})} speakers; "
        f"test: {len(test)} of {len({s for s, _ in test})}; {len(trials)} trials; "
        f"{sum((output / path).stat().st_size for _, path in train + test):,} bytes of audio"
    )


def read_provenance(path: Path) -> dict[str, Provenance]:
    """Reads `provenance.tsv`, keyed by speaker."""
    with path.open(encoding="utf-8", newline="") as lines:
        return {
            row["speaker"]: Provenance(
                row["speaker"], row["package"], row["version"], row["licence"], row["kind"]
            )
            for row in csv.DictReader(lines, delimiter="\t")
        }


def allowed_utterances(path: Path, provenance: Mapping[str, Provenance]) -> list[tuple[str, str]]:
    """The (speaker, path) pairs of a list whose speaker's licence allows bundling."""
    pairs = [tuple(line.split(" ", 1)) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(s, p) for s, p in pairs if ALLOWED_LICENCE.match(provenance[s].licence)]


def read_trials(path: Path) -> list[Trial]:
    """Reads `1|0 path path` lines."""
    trials: list[Trial] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split()
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            raise ValueError(f"{path}:{number}: expected '1|0 path path', found {line!r}")
        trials.append((fields[0], fields[1], fields[2]))
    return trials


def choose_train(utterances: list[tuple[str, str]], realspeech: Path) -> list[tuple[str, str]]:
    """About k·√n of a speaker's n utterances (4 at least), with the largest k that fits `TRAIN_BYTES`."""
    by_speaker: defaultdict[str, list[str]] = defaultdict(list)
    for speaker, path in utterances:
        by_speaker[speaker].append(path)
    ordered = {s: spread_over_sessions(p) for s, p in by_speaker.items() if len(p) >= MIN_TRAIN_UTTERANCES}
    for hundredths in range(400, 0, -1):
        chosen = [
            (speaker, path)
            for speaker, paths in ordered.items()
            for path in paths[: max(FEWEST_TRAIN_UTTERANCES, int(hundredths * math.sqrt(len(paths)) / 100))]
        ]
        if sum((realspeech / path).stat().st_size for _, path in chosen) <= TRAIN_BYTES:
            return sorted(chosen)
    raise ValueError(f"{len(ordered)} speakers do not fit into {TRAIN_BYTES:,} bytes; raise TRAIN_BYTES")


def spread_over_sessions(paths: list[str]) -> list[str]:
    """Orders paths so that any prefix is spread over the sessions: each session's first, then each second…"""
    sessions: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(paths, key=digest):
        sessions[path.rsplit("/", 2)[1]].append(path)
    ranked = [
        (rank, digest(session), path)
        for session, members in sessions.items()
        for rank, path in enumerate(members)
    ]
    return [path for _, _, path in sorted(ranked)]


def choose_test(trials: list[Trial], sizes: Mapping[str, int]) -> set[str]:
    """A set of utterances within `TEST_BYTES` that keeps many of the trials.

    Greedy: the utterance with the fewest remaining trials per byte goes first, at first those of speakers
    with more than `MAX_TEST_UTTERANCES`. A speaker falls below `MIN_TEST_UTTERANCES` only as a whole, and
    only while more than `MIN_TEST_SPEAKERS` remain.
    """
    partners: defaultdict[str, list[str]] = defaultdict(list)
    for _, first, second in trials:
        partners[first].append(second)
        partners[second].append(first)
    kept = set(partners)
    remaining = Counter(speaker_of(path) for path in kept)

    def trials_per_byte(path: str) -> tuple[float, str]:
        return sum(partner in kept for partner in partners[path]) / sizes[path], path

    while (
        max(remaining.values(), default=0) > MAX_TEST_UTTERANCES
        or sum(sizes[path] for path in kept) > TEST_BYTES
    ):
        removable = [path for path in kept if remaining[speaker_of(path)] > MAX_TEST_UTTERANCES] or [
            path
            for path in kept
            if remaining[speaker_of(path)] > MIN_TEST_UTTERANCES or len(remaining) > MIN_TEST_SPEAKERS
        ]
        if not removable:
            raise ValueError(f"the test fold does not fit into {TEST_BYTES:,} bytes; raise TEST_BYTES")
        worst = min(removable, key=trials_per_byte)
        speaker = speaker_of(worst)
        if remaining[speaker] > MIN_TEST_UTTERANCES:
            kept.remove(worst)
            remaining[speaker] -= 1
        else:
            kept = {path for path in kept if speaker_of(path) != speaker}
            del remaining[speaker]
    return kept


def balance(trials: list[Trial]) -> list[Trial]:
    """As many targets as non-targets, in the given order; the surplus is dropped by hash."""
    groups = [[trial for trial in trials if trial[0] == label] for label in ("0", "1")]
    size = min(map(len, groups))
    kept = {trial for group in groups for trial in sorted(group, key=lambda t: digest(" ".join(t)))[:size]}
    return [trial for trial in trials if trial in kept]


def speaker_of(path: str) -> str:
    """The speaker of `fold/speaker/session/file`."""
    return path.split("/")[1]


def digest(text: str) -> str:
    """A fixed pseudo-random order that no library version changes."""
    return hashlib.sha256(text.encode()).hexdigest()


def duration_s(path: Path) -> float:
    """Seconds of audio that the container (FLAC or MP4) states."""
    data = path.read_bytes()
    if data[:4] == b"fLaC":
        # STREAMINFO: 20 bits sample rate, 3 channels, 5 depth, 36 number of samples, at byte 18.
        fields = int.from_bytes(data[18:26], "big")
        return (fields & (1 << 36) - 1) / (fields >> 44)
    header = next(boxes(data, (b"moov", b"trak", b"mdia", b"mdhd")))
    timescale, units = (
        struct.unpack_from(">IQ", header, 20) if header[0] else struct.unpack_from(">II", header, 12)
    )
    return float(units / timescale)


def boxes(data: bytes, names: tuple[bytes, ...]) -> Iterator[bytes]:
    """The payloads of the MP4 boxes at a path of names."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8:  # 0 and 1 mean "to the end" and a 64-bit size: never before `moov` in these files
            return
        if data[at + 4 : at + 8] == names[0]:
            payload = data[at + 8 : at + size]
            if len(names) == 1:
                yield payload
            else:
                yield from boxes(payload, names[1:])
        at += size


ATTRIBUTION_HEAD = """\
# Attribution of the bundled recordings

The recordings in `train/` and `test/` are real people's voices from freely licensed Debian packages
(voice prompts, children's programs, games, test data). Each keeps the licence of its package, named
below; the licence of this repository's code does not apply to them. Authors and full copyright notices
are in the file `debian/copyright` of the source package and version given.

**What was changed** (2026): the packages' recordings were cut or joined into utterances of about 2 to 12 s,
mixed down to one channel, resampled to 16 kHz and encoded as AAC at 40 kbit/s (`train/`) or as FLAC
(`test/`); files were renamed to `speaker/session/utterance`, where a session is a folder or theme of the
package. From that collection this bundle is a selection, copied byte for byte by `make_samples.py`.
The unmodified originals are in the packages named. A few people may stand behind two speaker names.

**Licence texts**: GPL-2, GPL-3, LGPL-3 and the notice of Carnegie Mellon University's BSD licence (packages
`pocketsphinx-*`) are in `licences/`; CC-BY-3.0 is at <https://creativecommons.org/licenses/by/3.0/legalcode>,
CC-BY-SA-3.0 at <https://creativecommons.org/licenses/by-sa/3.0/legalcode>. The cut and encoded recordings
are offered under the same licences as the originals.
"GPL-2+" means version 2 or, at your choice, any later version.

The numbers count what is bundled here.

| speaker | set | package | version | licence | kind | utterances | seconds |
|---|---|---|---|---|---|---:|---:|
"""


def attribution(utterances: list[tuple[str, str]], provenance: Mapping[str, Provenance], folder: Path) -> str:
    """The text of `ATTRIBUTION.md` for the copied (speaker, path) pairs under `folder`."""
    rows: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for speaker, path in utterances:
        rows[path.split("/")[0], speaker].append(duration_s(folder / path))
    lines = []
    for (fold, speaker), seconds in rows.items():
        origin = provenance[speaker]
        package, version = (value.replace(",", ", ") for value in (origin.package, origin.version))
        lines.append(
            f"| {speaker} | {fold} | {package} | {version} | {origin.licence} | {origin.kind} "
            f"| {len(seconds)} | {sum(seconds):.1f} |\n"
        )
    total = sum(sum(seconds) for seconds in rows.values())
    lines.append(f"\n{len(rows)} speakers, {len(utterances)} utterances, {total:.0f} seconds.\n")
    return ATTRIBUTION_HEAD + "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
