"""Measures training against the issue's targets; prints one table.

    python tests/benchmarks/training.py [--voxceleb-trainer DIR] [--features URI [--wavs DIR]]
        [--device cpu|cuda] [--json FILE] [--quick]

Compared are this project's data path and training loop with voxceleb_trainer's own code, from a checkout
that the user has. Each side is a process of its own; they work in turn, A B C A B C …, and ratios are medians
over the rounds: compare them, not absolute figures, between machines. With a GPU, whole models are measured
on it. Linux only. Needs the dev extra; voxceleb_trainer needs torchaudio, soundfile and scipy of it.
"""

import argparse
import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import Machine, pin_to_one_core

if TYPE_CHECKING:
    from report import Row
    from training_bench import TrainingBench
    from training_model_rows import OnDevice

_SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
_GROUPS = ("crops", "steps", "loading", "checkpoints", "models")


def main() -> None:
    """Measures, prints, writes."""
    parsed = _parse()
    machine = pin_to_one_core()
    # Only now: NumPy and torch count the cores that they may use when they are imported.
    import torch
    from report import table, write_json
    from training_bench import QUICK, TrainingBench, TrainingEffort
    from training_material import Corpus, given_corpus, sample_corpus

    torch.set_num_threads(1)
    effort = QUICK if parsed.quick else TrainingEffort()
    if parsed.rounds:
        effort = replace(effort, step_rounds=parsed.rounds)
    on = _on_device(parsed)
    conditions = _conditions(machine, parsed)
    rows = []
    with tempfile.TemporaryDirectory(prefix="voxsrc-benchmark-", dir=parsed.scratch) as scratch:
        folder = Path(scratch)

        def make_corpus() -> Corpus:
            if parsed.features:
                return given_corpus(parsed.features, parsed.wavs, folder)
            return sample_corpus(_SAMPLES, effort.hours, folder)

        bench = TrainingBench(machine, make_corpus, parsed.voxceleb_trainer, folder, effort)
        for row in _rows(bench, parsed.only, on):
            print(f"measured: {row.title}", file=sys.stderr, flush=True)
            rows.append(row)
    conditions["load_average_after"] = list(os.getloadavg())
    print(f"{_summary(conditions)}\n\n{table(rows)}")
    if parsed.json:
        write_json(parsed.json, rows, conditions)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voxceleb-trainer", type=Path, metavar="DIR", help="checkout to compare with")
    parser.add_argument(
        "--features", metavar="URI", help="feature set of 40 mels (default: made of the bundled samples)"
    )
    parser.add_argument(
        "--wavs", type=Path, metavar="DIR", help="the utterances of --features as 16 kHz wav, for the peer"
    )
    parser.add_argument("--device", default="auto", help="where models are measured: cpu, cuda, cuda:N")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="models to measure on the device")
    parser.add_argument("--gpu-batch", type=int, default=256, metavar="B", help="their batch (default: 256)")
    parser.add_argument("--precision", choices=("bf16", "fp16", "fp32"), default="bf16", help="theirs")
    parser.add_argument(
        "--synthetic-gb", type=float, metavar="GB", help="random features on the device (default: 2)"
    )
    parser.add_argument(
        "--peak-tflops", type=float, help="the device's peak (default: by the GPU's name, if it is known)"
    )
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--quick", action="store_true", help="a tiny network: only shows that it runs")
    parser.add_argument("--rounds", type=int, help="rounds of the step rows (default: 20)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=_GROUPS,
        help="groups of rows to measure (default: all; models only with a GPU)",
    )
    parser.add_argument("--scratch", type=Path, help="folder for some 500 MB of temporary files")
    parsed = parser.parse_args()
    checkout = parsed.voxceleb_trainer
    if checkout and not (checkout / "SpeakerNet.py").is_file():
        parser.error(f"{checkout} has no SpeakerNet.py; give a checkout of clovaai/voxceleb_trainer")
    if parsed.wavs and not parsed.features:
        parser.error("--wavs belongs to --features; give both or neither")
    return parsed


def _on_device(parsed: argparse.Namespace) -> "OnDevice":
    import torch
    from training_bench import QUICK, TrainingEffort
    from training_model_rows import GPU_MODELS, OnDevice, peak_tflops

    has_gpu = torch.cuda.is_available()
    device = parsed.device if parsed.device != "auto" else "cuda" if has_gpu else "cpu"
    on_gpu = device.startswith("cuda")
    if on_gpu and not has_gpu:
        sys.exit(f"--device {device}: torch {torch.__version__} sees no GPU; take --device cpu")
    if parsed.only is None:
        parsed.only = [group for group in _GROUPS if on_gpu or group != "models"]
    name = torch.cuda.get_device_name(device) if on_gpu else _cpu_model()
    effort = QUICK if parsed.quick else TrainingEffort()
    return OnDevice(
        device=device,
        device_name=name,
        models=tuple(parsed.models or ((effort.model,) if parsed.quick else GPU_MODELS)),
        batch_size=effort.batch_size if parsed.quick else parsed.gpu_batch,
        precision="fp32" if parsed.quick else parsed.precision,
        compiles=effort.compiles,
        peak_tflops=parsed.peak_tflops or (peak_tflops(name) if on_gpu else None),
        synthetic_gb=parsed.synthetic_gb or effort.synthetic_gb,
    )


def _rows(bench: "TrainingBench", groups: list[str], on: "OnDevice") -> "Iterator[Row]":
    import training_model_rows
    import training_rows

    if "crops" in groups:
        yield from training_rows.crop_rows(bench)
    if "steps" in groups:
        yield from training_rows.step_rows(bench)
    if "loading" in groups:
        yield training_rows.augmented_row(bench)
    if "checkpoints" in groups:
        yield from training_rows.checkpoint_rows(bench)
    if "models" in groups:
        yield from training_model_rows.model_rows(bench, on)


def _conditions(machine: Machine, parsed: argparse.Namespace) -> dict[str, Any]:
    installed = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
    packages = ("numpy", "torch", "torchaudio", "soundfile")
    return {
        "cpu": _cpu_model(),
        "cores": len(machine.cores),
        "load_average": list(os.getloadavg()),
        "python": platform.python_version(),
        "packages": {name: installed.get(name) for name in packages},
        "quick": parsed.quick,
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _summary(conditions: dict[str, Any]) -> str:
    before, after = conditions["load_average"], conditions["load_average_after"]
    return (
        f"{conditions['cpu']}, {conditions['cores']} core(s), torch {conditions['packages']['torch']}; "
        f"load average before {before}, after {after}"
        + ("; quick: the figures mean nothing" if conditions["quick"] else "")
    )


if __name__ == "__main__":
    main()
