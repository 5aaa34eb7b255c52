"""Rows on a finished set: its size and error, reading it back, random crops of it."""

from pathlib import Path

import numpy as np
import original
import ours
import torch
from bench import Bench
from material import as_wav
from numpy.typing import NDArray
from report import Row, Target, rate_row
from timing import alternate

from voxsrc.feature_set import FeatureSet
from voxsrc.feature_set.manifest import MANIFEST_NAME
from voxsrc.features.scipy_log_mel import LogMelExtractor

_CROPS, _CROP_FRAMES = 512, 200
_FOOTPRINT_PERCENT = {"0.2": 7.5, "0.1": 9.0}
_READ = Target(20_000, "ours")
_RANDOM_ACCESS = Target(80_000, "ours")

Int64Array = NDArray[np.int64]


class OriginalArchive:
    """The original's features of the benchmark's audio, packed and unpacked.

    Attributes:
        skipped: Why there are none; empty if there are.
        archive: The tar.gz.
        folder: The unpacked `.npy` files.
    """

    def __init__(self, bench: Bench) -> None:
        self.skipped = original.missing_programs(decodes=False)
        output = bench.fresh_folder("original")
        self.archive = output / original.ARCHIVE_NAME
        self.folder = output / original.FOLDER_NAME
        if not self.skipped:
            wavs = as_wav(bench.audio, bench.waveforms, bench.fresh_folder("original-wav"))
            original.extract_wavs(wavs.files, output)


def footprint_rows(bench: Bench, theirs: OriginalArchive) -> list[Row]:
    """Bytes against 16-bit PCM, and the greatest error, at both steps."""
    rows = []
    for step, target_percent in _FOOTPRINT_PERCENT.items():
        folder = bench.fresh_folder(f"step{step}")
        ours.extract(bench.audio, folder, "--step", step)
        features = FeatureSet.open(str(folder), mode="ram")
        manifest = features.manifest
        stored_bytes = manifest.stored_bytes + (folder / MANIFEST_NAME).stat().st_size
        all_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        percent = 100 * stored_bytes / manifest.pcm16_bytes
        their_percent = None
        if not theirs.skipped:
            their_percent = 100 * theirs.archive.stat().st_size / manifest.pcm16_bytes
        rows.append(
            Row(
                f"footprint_step_{step}",
                f"footprint at step {step} nat (shards, index, manifest)",
                "% of PCM16",
                ours=percent,
                reference=their_percent,
                reference_is="original float16 tar.gz",
                ratio=their_percent and their_percent / percent,
                target=Target(target_percent, "ours", "at most"),
                details={
                    "bytes": stored_bytes,
                    "pcm16_bytes": manifest.pcm16_bytes,
                    "percent_with_records_and_plan": 100 * all_bytes / manifest.pcm16_bytes,
                    "limited_values": manifest.counts["limited_values"],
                },
            )
        )
        rows.append(
            Row(
                f"max_error_step_{step}",
                f"greatest error at step {step} nat",
                "nat",
                ours=_max_error(bench, features),
                target=Target(float(step) / 2, "ours", "at most"),
            )
        )
    return rows


def reading_rows(bench: Bench, set_folder: Path, theirs: OriginalArchive) -> list[Row]:
    """A whole set back: into memory, and utterance by utterance."""
    seconds = FeatureSet.open(str(set_folder)).manifest.seconds

    def read_by_shard(pair: int) -> None:
        for _ in FeatureSet.open(str(set_folder)):
            pass

    def read_theirs(pair: int) -> None:
        if not theirs.skipped:
            original.read_all(theirs.archive, bench.fresh_folder("unpacked"))

    ways = {
        "read_ram": (
            "open a set in RAM",
            lambda pair: FeatureSet.open(str(set_folder), "ram", num_threads=1),
        ),
        "read_by_shard": ("read() of every utterance, by shard, as float32", read_by_shard),
    }
    rows = []
    for name, (title, read) in ways.items():
        title = f"{title} ({seconds / 3600:.1f} h, one thread)"
        if theirs.skipped:
            rows.append(Row(name, title, target=_READ, skipped=theirs.skipped))
            continue
        pairs = alternate(read, read_theirs, bench.effort.num_fast_pairs)
        amount = (seconds, bench.audio.seconds)
        rows.append(
            rate_row(name, title, pairs, amount, reference_is="original unpacked, np.load", target=_READ)
        )
    return rows


def random_access_rows(bench: Bench, set_folder: Path, theirs: OriginalArchive) -> list[Row]:
    """Batches of random crops to float32, beside what memory bandwidth and other ways allow."""
    in_ram = FeatureSet.open(str(set_folder), mode="ram")
    cache_dir = bench.scratch / "cache"
    mapped = FeatureSet.open(str(set_folder), mode="mmap", cache_dir=str(cache_dir))
    batches = _draw_batches(in_ram, bench.effort.crop_batches)
    out = np.empty((_CROPS, _CROP_FRAMES, in_ram.shape[1]), np.float32)
    copied = np.ones_like(out)
    levels, encoding = in_ram.to_torch(), in_ram.manifest.encoding
    out_torch, span = torch.from_numpy(np.empty_like(out)), torch.arange(_CROP_FRAMES)

    def crop(features: FeatureSet) -> None:
        for first_frames in batches:
            features.crops(first_frames, _CROP_FRAMES, out=out)

    def crop_with_torch() -> None:
        for first_frames in batches:
            index = (torch.from_numpy(first_frames)[:, None] + span).view(-1)
            crops = levels.index_select(0, index).view(out_torch.shape)
            torch.mul(crops, encoding.step_nat, out=out_torch).add_(encoding.offset_nat)

    def copy_floats() -> None:
        for _ in batches:
            np.copyto(out, copied)

    num_crops = _CROPS * len(batches)
    size = f"{in_ram.frames.nbytes / 1e6:,.0f} MB of frames"
    bandwidth = "a bare copy of as many float32"
    in_torch = "to_torch, index_select, dequantise"
    comparisons = [
        (
            "crops_ram",
            f"random 200-frame crops from RAM, batches of 512 ({size})",
            in_ram,
            crop_with_torch,
            in_torch,
        ),
        ("crops_mmap", "the same from a memory map, page cache warm", mapped, crop_with_torch, in_torch),
        ("crops_bandwidth", "the same from RAM, against memory bandwidth", in_ram, copy_floats, bandwidth),
    ]
    rows = []
    for name, title, features, reference, reference_is in comparisons:
        pairs = alternate(
            lambda pair, features=features: crop(features),  # type: ignore[misc]
            lambda pair, reference=reference: reference(),  # type: ignore[misc]
            bench.effort.num_fast_pairs,
        )
        target = None if name == "crops_bandwidth" else _RANDOM_ACCESS
        amount = (float(num_crops), float(num_crops))
        rows.append(
            rate_row(name, title, pairs, amount, unit="crops/s", reference_is=reference_is, target=target)
        )
    rows.append(_against_npy(bench, in_ram, batches, theirs))
    return rows


def _against_npy(bench: Bench, in_ram: FeatureSet, batches: list[Int64Array], theirs: OriginalArchive) -> Row:
    name, title = "crops_original", "the same from RAM, against the original's loader"
    if theirs.skipped:
        return Row(name, title, skipped=theirs.skipped)
    lengths = {file: len(np.load(file)) for file in sorted(theirs.folder.iterdir())}
    long_enough = [file for file, length in lengths.items() if length >= _CROP_FRAMES]
    rng = np.random.default_rng(1)
    drawn = [long_enough[i] for i in rng.integers(0, len(long_enough), _CROPS)]
    firsts = [int(rng.integers(0, lengths[file] - _CROP_FRAMES + 1)) for file in drawn]
    out = np.empty((_CROPS, _CROP_FRAMES, in_ram.shape[1]), np.float32)

    def crop_theirs(pair: int) -> None:
        for crop, file, first in zip(out, drawn, firsts, strict=True):
            crop[...] = np.load(file)[first : first + _CROP_FRAMES]

    def crop_ours(pair: int) -> None:
        for first_frames in batches:
            in_ram.crops(first_frames, _CROP_FRAMES, out=out)

    pairs = alternate(crop_ours, crop_theirs, bench.effort.num_fast_pairs)
    amount = (float(_CROPS * len(batches)), float(_CROPS))
    return rate_row(name, title, pairs, amount, unit="crops/s", reference_is="a .npy an utterance")


def _draw_batches(features: FeatureSet, num_batches: int) -> list[Int64Array]:
    index = features.index
    long_enough = np.flatnonzero(index.num_frames >= _CROP_FRAMES)
    if not len(long_enough):
        raise SystemExit(f"no utterance has {_CROP_FRAMES} frames; give --audio and --list with longer ones")
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(num_batches):
        rows = rng.choice(long_enough, _CROPS)
        batches.append(index.first_frames[rows] + rng.integers(0, index.num_frames[rows] - _CROP_FRAMES + 1))
    return batches


def _max_error(bench: Bench, features: FeatureSet) -> float:
    """Over all values, the limited ones included, in nat."""
    extract = LogMelExtractor(features.manifest.spec)
    return max(
        float(np.abs(features.read(utterance.utterance_id) - extract(waveform)).max())
        for utterance, waveform in zip(bench.audio.utterances, bench.waveforms, strict=True)
    )
