"""Rows on the CPU: crops, steps, loading, checkpoints, each beside voxceleb_trainer if it was given."""

import json
import os
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from report import Row, Target, rate_row
from timing import Pairs, Spent
from training_bench import TrainingBench
from training_side import Side, take_turns

RECIPE = "fast_resnet34_angleproto"
# Speed alone is measured: nothing that a recipe adds to the bare step.
BARE = (
    "augment={}",
    "fine_tuning=null",
    "validation.fraction=0",
    "sampler.max_utterances_per_speaker=null",
    "learning_rate={kind: constant, initial: 0.001}",
    "onnx=none",
)

_CROPS_TARGET, _STEP_TARGET = Target(200), Target(1.2)
_LOADING_TARGET = Target(3, of="ours", bound="at most")
_DELAY_TARGET = Target(2, of="ours", bound="at most")
_PEER = "voxceleb_trainer"


def crop_rows(bench: TrainingBench) -> list[Row]:
    """Crops per second through the data path, on one core."""
    return [_crop_row(bench, "ram", "RAM"), _crop_row(bench, "mmap", "a memory map")]


def _crop_row(bench: TrainingBench, placement: str, where: str) -> Row:
    effort, corpus = bench.effort, bench.corpus
    title = f"log-mel crops of {effort.crop_frames} frames from {where}, planned, one core"
    what = {
        "do": "our_crops",
        "features": corpus.features,
        "placement": placement,
        "cache": str(bench.scratch / "cache"),
        "batch_size": effort.batch_size,
        "crop_frames": effort.crop_frames,
    }
    with ExitStack() as stack:
        sides = {"ours": stack.enter_context(Side(bench.machine, what, bench.log(placement), one_core=True))}
        if bench.has_peer:
            peer = Side(bench.machine, _peer(bench, "peer_crops"), bench.log("peer-crops"), one_core=True)
            sides["peer"] = stack.enter_context(peer)
        repetitions = {"ours": effort.our_batches, "peer": effort.peer_batches}
        # Threads, caches and the processor's clock settle in the first.
        take_turns(sides, repetitions, 1)
        spent = take_turns(sides, repetitions, effort.crop_rounds)
    return _rate(
        bench,
        f"crops_{placement}",
        title,
        spent["ours"],
        spent.get("peer"),
        (effort.our_batches * effort.batch_size, effort.peer_batches * effort.batch_size),
        f"{_PEER}: wav, crop, filterbank",
        _CROPS_TARGET,
    )


def step_rows(bench: TrainingBench) -> list[Row]:
    """Steps of training on all cores, in all variants beside one peer; and what loading takes of them."""
    effort = bench.effort
    unit = f"{effort.model} step, {effort.batch_size} × {effort.crop_frames}"
    variants: dict[str, tuple[str, list[str]]] = {
        "step": (f"{unit}, fp32, as by default", []),
        "step_contiguous": (f"{unit}, fp32, without channels-last", ["channels_last=false"]),
    }
    skipped = []
    compiled_title = f"{unit}, fp32, torch.compile"
    if effort.compiles:
        variants["step_compile"] = (compiled_title, ["compile=true"])
    else:
        skipped.append(Row("step_compile", compiled_title, skipped="--quick does not compile"))
    bf16_title = f"{unit}, bf16 autocast"
    if _has_bf16():
        variants["step_bf16"] = (bf16_title, ["precision=bf16"])
    else:
        skipped.append(Row("step_bf16", bf16_title, skipped="the processor has no bf16 arithmetic"))
    with ExitStack() as stack:
        sides = {}
        for name, (_, overrides) in variants.items():
            side = Side(bench.machine, our_steps(bench, name, overrides), bench.log(name))
            sides[name] = stack.enter_context(side)
        if bench.has_peer:
            peer = Side(bench.machine, _peer(bench, "peer_steps"), bench.log("peer-steps"))
            sides["peer"] = stack.enter_context(peer)
        spent = take_turns(sides, dict.fromkeys(sides, 1), effort.step_rounds)
    rows = [
        _rate(
            bench,
            name,
            title,
            spent[name],
            spent.get("peer"),
            (effort.batch_size, effort.batch_size),
            f"{_PEER}: fp32, filterbank in the network, without loading",
            _STEP_TARGET if name == "step" else None,
        )
        for name, (title, _) in variants.items()
    ]
    first = [
        Row(
            f"first_{name}",
            f"the first step of: {title}",
            "s",
            ours=sides[name].first["wall_s"],
            details={"cpu_s": sides[name].first["cpu_s"]},
        )
        for name, (title, _) in variants.items()
        if name in ("step", "step_compile")
    ]
    loading = _loading_row("loading", f"loading a batch, of: {variants['step'][0]}", sides["step"])
    return [*rows, *skipped, *first, loading]


def augmented_row(bench: TrainingBench) -> Row:
    """What loading takes with every kind of augmentation."""
    # The set itself stands for noise and music: what it holds makes no difference to the time.
    recordings = {"probability": 0.25, "features": bench.corpus.features}
    augment = {
        "noise": recordings,
        "music": recordings,
        "babble": {"probability": 0.25},
        "reverberation": {"probability": 0.25},
        **{kind: {"probability": 1.0} for kind in ("gain", "gaussian", "spec_augment")},
    }
    what = our_steps(bench, "augmented", [f"augment={json.dumps(augment)}"])
    with Side(bench.machine, what, bench.log("augmented")) as side:
        take_turns({"ours": side}, {"ours": 1}, bench.effort.load_steps)
    title = "the same, every crop with noise, music, babble or reverberation, and gain, Gaussian, masks"
    return _loading_row("loading_augmented", title, side)


def _loading_row(name: str, title: str, side: Side) -> Row:
    loading_s = statistics.median(answer["loading_s"] for answer in side.answers)
    step_s = statistics.median(answer["wall_s"] for answer in side.answers)
    return Row(
        name,
        title,
        "% of the step",
        ours=100 * loading_s / step_s,
        target=_LOADING_TARGET,
        details={"loading_ms": 1e3 * loading_s, "step_ms": 1e3 * step_s, "load_average": os.getloadavg()},
    )


def checkpoint_rows(bench: TrainingBench) -> list[Row]:
    """How a save, in the loop and beside it, delays the training; to a local folder."""
    effort = bench.effort
    what = {**our_steps(bench, "saves", ["checkpoint_interval_s=0"]), "saves": True}
    with Side(bench.machine, what, bench.log("saves")) as side:
        # The first save allocates the memory that the others use again.
        take_turns({"ours": side}, {"ours": 1}, 3)
        side.answers.clear()
        take_turns({"ours": side}, {"ours": 1}, 2 * effort.saves + 1)
    saved = [answer for answer in side.answers if answer["submitted"]]
    ended = [answer for answer in side.answers if "write_s" in answer]
    waiting_s = statistics.median(answer["saving_s"] for answer in saved)
    write_s = statistics.median(answer["write_s"] for answer in ended)
    interval_s = side.answers[-1]["interval_s"]
    # What is written beside the loop takes cores from the step after; noise is larger than this.
    beside_s = statistics.median(
        after["wall_s"] - (before["wall_s"] - before["saving_s"])
        for before, after in zip(side.answers, side.answers[1:], strict=False)
        if before["submitted"]
    )
    details = {
        "waiting_ms": 1e3 * waiting_s,
        "write_ms": 1e3 * write_s,
        "next_step_longer_ms": 1e3 * beside_s,
        "interval_s": interval_s,
        "num_saves": len(saved),
        "load_average": os.getloadavg(),
    }
    megabytes = ended[-1]["num_bytes"] / 1e6
    of = f"of the {interval_s:.0f} s between saves"
    return [
        Row(
            "save_waiting",
            f"the loop waits {1e3 * waiting_s:.1f} ms for a save ({effort.model}, Adam, {megabytes:.0f} MB)",
            f"% {of}",
            ours=100 * waiting_s / interval_s,
            target=_DELAY_TARGET,
            details=details,
        ),
        Row(
            "save_whole",
            "the same, had the loop stood still until the file was written",
            f"% {of}",
            ours=100 * (waiting_s + write_s) / interval_s,
            target=_DELAY_TARGET,
            details=details,
        ),
        Row("save_write", "the file is written and synchronised beside the loop", "ms", ours=1e3 * write_s),
    ]


def our_steps(bench: TrainingBench, name: str, overrides: list[str]) -> dict[str, Any]:
    """A side that runs our loop on the CPU."""
    effort, corpus = bench.effort, bench.corpus
    encoder = {"name": effort.model, "num_mels": corpus.num_mels, "normalisation": "mean_variance"}
    if effort.model == "ResNetSE34L":
        encoder["embedding_dim"] = 512
    return {
        "do": "our_steps",
        "recipe": RECIPE,
        "overrides": [
            f"encoder={json.dumps(encoder)}",
            f"batch_size={effort.batch_size}",
            f"sampler.crop_frames={effort.crop_frames}",
            *BARE,
            "precision=fp32",
            "device=cpu",
            *overrides,
        ],
        "features": corpus.features,
        "output": str(bench.scratch / f"run-{name}"),
    }


def _peer(bench: TrainingBench, do: Literal["peer_crops", "peer_steps"]) -> dict[str, Any]:
    empty = bench.scratch / "empty"
    empty.mkdir(exist_ok=True)
    return {
        "do": do,
        "checkout": str(bench.checkout),
        "wavs": str(bench.corpus.wavs),
        "list": str(bench.corpus.list_file),
        "empty_folder": str(empty),
        "num_mels": bench.corpus.num_mels,
        "batch_size": bench.effort.batch_size,
        "crop_frames": bench.effort.crop_frames,
    }


def _rate(
    bench: TrainingBench,
    name: str,
    title: str,
    ours: list[Spent],
    theirs: list[Spent] | None,
    amount: tuple[float, float],
    reference_is: str,
    target: Target | None,
) -> Row:
    details = {"load_average": os.getloadavg(), "num_utterances": bench.corpus.num_utterances}
    if theirs is not None:
        return rate_row(
            name,
            title,
            Pairs(ours, theirs),
            amount,
            unit="crops/s",
            reference_is=reference_is,
            target=target,
            details={
                **details,
                "ours_cpu_s": statistics.median(spent.cpu_s for spent in ours),
                "reference_cpu_s": statistics.median(spent.cpu_s for spent in theirs),
                # What a busy machine disturbs least.
                "ratio_of_fastest": amount[0] * _fastest_s(theirs) / (amount[1] * _fastest_s(ours)),
            },
        )
    seconds = statistics.median(spent.wall_s for spent in ours)
    missing = f"{_PEER}: not given"
    if bench.checkout is not None:
        missing = f"{_PEER}: not measured, --features without --wavs"
    return Row(
        name,
        f"{title} ({missing})",
        "crops/s",
        ours=amount[0] / seconds,
        reference_is=missing,
        target=target,
        details={**details, "ours_s": seconds},
    )


def _fastest_s(turns: list[Spent]) -> float:
    return min(spent.wall_s for spent in turns)


def _has_bf16() -> bool:
    flags = Path("/proc/cpuinfo").read_text().split()
    return "avx512_bf16" in flags or "amx_bf16" in flags
