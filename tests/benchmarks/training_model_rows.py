"""Rows of whole models on random features that lie on the device, extrapolated to VoxCeleb2."""

import json
import statistics
from dataclasses import dataclass
from typing import Any

from report import Row, Target
from training_bench import TrainingBench
from training_material import VOXCELEB2_UTTERANCES
from training_rows import BARE, RECIPE
from training_side import Side, SideError

from voxsrc.models import MODELS
from voxsrc.models.complexity import measure

BASELINE = "ResNetSE34L"
GPU_MODELS = (BASELINE, "ResNetSE34V2", "ECAPA_TDNN_512", "ECAPA_TDNN_1024", "ResNet34")

# Dense bf16 (fp16 before Ampere) TFLOP/s of the vendor's data sheets, by a part of torch's name of the GPU;
# the first that fits counts.
_PEAK_TFLOPS = {
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H200": 989.0,
    "B200": 2250.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10": 125.0,
    "V100": 125.0,
    "T4": 65.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
_WAIT_TARGET = Target(2, of="ours", bound="at most")
_EPOCH_TARGET = Target(40, of="ours", bound="at most")


@dataclass(frozen=True)
class OnDevice:
    """How models are measured.

    Attributes:
        device: `cuda`, `cuda:N`; `cpu` to see that it runs.
        device_name: As people know it.
        models: Their names.
        batch_size: Crops of a batch.
        precision: Of the recipe.
        compiles: Whether each is measured compiled, too.
        peak_tflops: What the device could do at best; None if that is not known.
        synthetic_gb: Random features, 10⁹ bytes.
    """

    device: str
    device_name: str
    models: tuple[str, ...]
    batch_size: int
    precision: str
    compiles: bool
    peak_tflops: float | None
    synthetic_gb: float


def peak_tflops(device_name: str) -> float | None:
    """Peak of a GPU that the table has; None of others."""
    return next((peak for part, peak in _PEAK_TFLOPS.items() if part in device_name), None)


def model_rows(bench: TrainingBench, on: OnDevice) -> list[Row]:
    """Each model with and without `torch.compile`, then the worst wait for data and the baseline's epoch."""
    rows = []
    for name in on.models:
        for compiled in (True, False) if on.compiles else (False,):
            rows.append(_model_row(bench, on, name, compiled))
    augmented = _model_row(bench, on, on.models[0], on.compiles, with_augmentation=True)
    return [*rows, augmented, *_verdicts([*rows, augmented], on)]


def _model_row(
    bench: TrainingBench, on: OnDevice, name: str, compiled: bool, *, with_augmentation: bool = False
) -> Row:
    effort, form = bench.effort, "compiled" if compiled else "eager"
    key = f"model_{name}_{'augmented' if with_augmentation else form}"
    title = f"{name}, {on.precision}, {form}, {on.batch_size} × {effort.crop_frames}"
    if with_augmentation:
        title += ", the recipe's augmentation"
    what = _side(bench, on, name, compiled, with_augmentation)
    try:
        with Side(bench.machine, what, bench.log(key)) as side:
            # Autotuning and a recompilation for the second batch are not the training's speed.
            for _ in range(2):
                side.turn(effort.gpu_steps)
            side.answers.clear()
            for _ in range(effort.gpu_rounds):
                side.turn(effort.gpu_steps)
    except SideError as error:
        return Row(key, title, skipped=str(error).splitlines()[-1][:300])
    seconds = statistics.median(answer["wall_s"] for answer in side.answers)
    crops_per_s = effort.gpu_steps * on.batch_size / seconds
    details: dict[str, Any] = {
        "device": on.device_name,
        "step_ms": 1e3 * seconds / effort.gpu_steps,
        "data_wait_percent": statistics.median(
            100 * answer["loading_s"] / answer["wall_s"] for answer in side.answers
        ),
        "voxceleb2_epoch_s": VOXCELEB2_UTTERANCES / crops_per_s,
        "first_step_s": side.first["wall_s"],
        "training_gflop_per_crop": measure(name, num_frames=effort.crop_frames).training_gflop,
        "peak_gib": side.answers[-1].get("peak_gib"),
        "mfu_percent": None,
    }
    if on.peak_tflops is not None:
        tflops = crops_per_s * details["training_gflop_per_crop"] / 1e3
        details |= {"peak_tflops": on.peak_tflops, "mfu_percent": 100 * tflops / on.peak_tflops}
    return Row(key, f"{title}: {_in_words(details)}", "crops/s", ours=crops_per_s, details=details)


def _side(
    bench: TrainingBench, on: OnDevice, name: str, compiled: bool, with_augmentation: bool
) -> dict[str, Any]:
    num_mels = MODELS[name].num_mels
    is_metric = name == BASELINE
    normalisation = "mean_variance" if is_metric else "mean"
    encoder = {"name": name, "num_mels": num_mels, "normalisation": normalisation}
    bare = [entry for entry in BARE if not (with_augmentation and entry.startswith("augment="))]
    return {
        "do": "our_steps",
        "recipe": RECIPE,
        "device": on.device,
        "overrides": [
            f"encoder={json.dumps(encoder)}",
            f"loss={json.dumps({'name': 'angleproto' if is_metric else 'aam'})}",
            f"sampler.utterances_per_speaker={2 if is_metric else 1}",
            f"sampler.crop_frames={bench.effort.crop_frames}",
            f"batch_size={on.batch_size}",
            *bare,
            f"precision={on.precision}",
            f"device={on.device}",
            f"compile={str(compiled).lower()}",
        ],
        "synthetic": {"num_mels": num_mels, "gigabytes": on.synthetic_gb},
        "output": str(bench.scratch / f"run-{name}"),
    }


def _in_words(details: dict[str, Any]) -> str:
    parts = [
        f"epoch of VoxCeleb2 {details['voxceleb2_epoch_s']:,.0f} s",
        f"waiting {details['data_wait_percent']:.2f} %",
        f"first step {details['first_step_s']:.1f} s",
    ]
    if details["mfu_percent"] is not None:
        parts.append(f"{details['mfu_percent']:.1f} % of {details['peak_tflops']:g} TFLOP/s")
    if details["peak_gib"] is not None:
        parts.append(f"peak {details['peak_gib']:.1f} GiB")
    return ", ".join(parts)


def _verdicts(rows: list[Row], on: OnDevice) -> list[Row]:
    measured = [row for row in rows if not row.skipped]
    if not measured:
        return []
    slowest = max(measured, key=lambda row: row.details["data_wait_percent"])
    wait = Row(
        "data_wait",
        f"waiting for data, the most of all models ({slowest.name.removeprefix('model_')})",
        "% of the time",
        ours=slowest.details["data_wait_percent"],
        target=_WAIT_TARGET,
    )
    of_baseline = [row for row in measured if row.name.startswith(f"model_{BASELINE}_")]
    if not of_baseline or on.device == "cpu":
        return [wait]
    epoch_s = min(row.details["voxceleb2_epoch_s"] for row in of_baseline)
    title = f"epoch of VoxCeleb2 ({VOXCELEB2_UTTERANCES:,} utterances), {BASELINE}, {on.device_name}"
    return [wait, Row("voxceleb2_epoch", title, "s", ours=epoch_s, target=_EPOCH_TARGET)]
