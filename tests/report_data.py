"""Data of made-up evaluations, for tests of the report."""

import io
import wave
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from evaluator.report import Comparison, Condition, Estimate, ReportData, System

SPEAKERS = ("anna", "ben", "carl", "dora", "emil", "fay")


def clip_of(utterance_id: str) -> bytes:
    """Half a second of a tone as a WAV file."""
    pitch_hz = 150 + 10 * (len(utterance_id) % 20)
    samples = 8000 * np.sin(2 * np.pi * pitch_hz * np.arange(4000) / 8000)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def clips_of(utterance_ids: Sequence[str]) -> dict[str, bytes]:
    """`clip_of` each."""
    return {name: clip_of(name) for name in utterance_ids}


def small_report(
    *,
    num_trials: int = 400,
    num_systems: int = 1,
    with_llrs: bool = True,
    speakers: tuple[str, ...] = SPEAKERS,
    clips: Callable[[Sequence[str]], Mapping[str, bytes]] | None = None,
    seed: int = 0,
    **changes: Any,
) -> ReportData:
    """A report of random trials, half of them of one speaker, with two conditions and all metrics.

    Args:
        num_trials: How many trials.
        num_systems: The first is the best; all but the last have log-likelihood ratios.
        with_llrs: Whether any system has log-likelihood ratios.
        speakers: Whom the trials are of.
        clips: See `ReportData`.
        seed: Seed of all that is random.
        changes: Other fields of `ReportData`.
    """
    generator = np.random.default_rng(seed)
    is_target = np.arange(num_trials) % 2 == 1
    first = generator.integers(0, len(speakers), num_trials)
    step = generator.integers(1, len(speakers), num_trials)
    second = np.where(is_target, first, (first + step) % len(speakers))
    systems = []
    for number in range(num_systems):
        scores = 0.35 * is_target + (0.15 + 0.05 * number) * generator.standard_normal(num_trials)
        is_calibrated = with_llrs and (number == 0 or number < num_systems - 1)
        metrics = {"eer": Estimate(0.1 + 0.01 * number, 0.05, 0.2), "min_dcf": Estimate(0.5, 0.4, 0.7)}
        if is_calibrated:
            metrics |= {"actual_dcf": Estimate(0.6, 0.5, 0.8), "cllr": Estimate(0.4, 0.3, 0.5)}
        llrs = 12 * (scores - 0.17) if is_calibrated else None
        systems.append(System(f"system {number}", scores, llrs, metrics))
    comparisons = [
        Comparison("system 0", system.name, "eer", Estimate(-0.01, -0.02, 0.001), 0.06)
        for system in systems[1:]
    ]
    names = [
        (f"{speakers[a]}/s{n % 3}/{n:05d}.wav", f"{speakers[b]}/s{n % 5}/{n:05d}x.wav")
        for n, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    fields: dict[str, Any] = {
        "title": "A test",
        "systems": systems,
        "labels": is_target.astype(np.int64),
        "enrollments": [enrollment for enrollment, _ in names],
        "tests": [test for _, test in names],
        "speakers": [(speakers[a], speakers[b]) for a, b in zip(first, second, strict=True)],
        "conditions": [
            Condition("duration (s)", generator.gamma(3.0, 2.0, num_trials)),
            Condition("room", [("kitchen", "hall")[n % 7 < 3] for n in range(num_trials)]),
        ],
        "comparisons": comparisons,
        "facts": {"trials": "made up", "model": "none"},
    }
    if clips is not None:
        fields["clips"] = clips
    return ReportData(**(fields | changes))
