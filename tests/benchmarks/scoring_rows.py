"""Rows of scoring, each beside a plain loop over a share of the same trials, measured in the same run."""

import os
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
import scoring_child
import scoring_loops
from evaluation_bench import EvaluationBench
from numpy.typing import NDArray
from report import Row, Target
from timing import Pairs, Spent, alternate

from voxsrc.scoring import Plda, mean_distance_scores

_OURS = ("cosine", "statistics", "as_norm")
_CROPS = 10
_MOST_SECONDS = Target(30, of="ours", bound="at most")
_MOST_MIB = Target(2048, of="ours", bound="at most")


def rows(bench: EvaluationBench) -> Iterator[Row]:
    """All of them; cosine and AS-norm on all cores, the others on one."""
    yield from _cosine_and_as_norm(bench)
    yield _mean_distance(bench)
    yield _plda(bench)


def _cosine_and_as_norm(bench: EvaluationBench) -> Iterator[Row]:
    effort = bench.effort
    share_utterances, share_trials = max(20, effort.num_utterances // 100), effort.scored_trials // 20
    found = scoring_child.measure(
        bench.machine,
        {
            "num_utterances": effort.num_utterances,
            "embedding_size": effort.embedding_size,
            "num_cohort_speakers": effort.num_cohort_speakers,
            "top_k": effort.cohort_top,
            "num_trials": effort.scored_trials,
            "share_utterances": share_utterances,
            "share_trials": share_trials,
            "num_pairs": effort.num_pairs,
        },
    )
    scales = {
        "cosine": effort.scored_trials / share_trials,
        "statistics": effort.num_utterances / share_utterances,
        "as_norm": effort.scored_trials / share_trials,
    }
    pairs = Pairs(
        [_total(found, turn, dict.fromkeys(_OURS, 1.0), "") for turn in range(effort.num_pairs)],
        [_total(found, turn, scales, "loop_") for turn in range(effort.num_pairs)],
    )
    title = (
        f"cosine and AS-norm: {effort.num_utterances:,} × {effort.embedding_size}, "
        f"cohort {effort.num_cohort_speakers:,}, top {effort.cohort_top}, {effort.scored_trials:,} trials"
    )
    details = {
        f"{name}_s": statistics.median(turn["wall_s"] for turn in found[name])
        for name in (*_OURS, *(f"loop_{name}" for name in _OURS))
    }
    yield _row(
        "cosine_and_as_norm",
        f"{title}, {len(bench.machine.cores)} cores",
        pairs,
        f"loop over 1/{scales['cosine']:.0f} of trials, 1/{scales['statistics']:.0f} of utterances, scaled",
        {**details, "max_difference": found["max_difference"]},
        _MOST_SECONDS,
    )
    yield Row(
        "scoring_memory",
        "the same: resident memory at its peak, embeddings, NumPy and all",
        "MiB",
        ours=found["peak_mib"],
        target=_MOST_MIB,
        details={"embeddings_mib": effort.num_utterances * effort.embedding_size * 4 / 2**20},
    )


def _mean_distance(bench: EvaluationBench) -> Row:
    effort = bench.effort
    generator = np.random.default_rng(1)
    num_utterances = max(20, effort.small_trials // 8)
    crops = generator.standard_normal((num_utterances, _CROPS, effort.embedding_size), np.float32)
    first, second = generator.integers(0, num_utterances, (2, effort.small_trials))
    share = max(50, effort.small_trials // 10)
    trials = _listed(first[:share], second[:share])
    pairs = alternate(
        lambda pair: mean_distance_scores(crops, first, second),
        lambda pair: scoring_loops.mean_distances(crops, trials),
        effort.num_pairs,
    )
    found = mean_distance_scores(crops, first[:share], second[:share])
    expected = scoring_loops.mean_distances(crops.astype(np.float64), trials)
    return _row(
        "mean_distance",
        f"mean distance of {_CROPS} × {_CROPS} crops of {effort.small_trials:,} trials, one core",
        _scaled(pairs, effort.small_trials / share),
        f"loop over 1/{effort.small_trials / share:.0f}, scaled",
        {"max_difference": float(np.abs(found - expected).max())},
    )


def _plda(bench: EvaluationBench) -> Row:
    effort = bench.effort
    generator = np.random.default_rng(2)
    size = effort.embedding_size
    num_speakers = max(20, size)
    speakers = np.repeat(np.arange(num_speakers), 8)
    centres = generator.standard_normal((num_speakers, size))
    training = centres[speakers] + generator.standard_normal((len(speakers), size))
    plda = Plda.fit(training.astype(np.float32), speakers.astype(str))
    vectors = generator.standard_normal((effort.num_utterances, size), np.float32)
    first, second = generator.integers(0, len(vectors), (2, effort.scored_trials))
    share = effort.scored_trials // 50
    trials = _listed(first[:share] % share, second[:share] % share)
    diagonal = (plda.project(vectors[:share]) - plda.mean) @ plda.transform.T
    pairs = alternate(
        lambda pair: plda.llr(vectors, first, second),
        lambda pair: scoring_loops.log_ratios(diagonal, plda.between, trials),
        effort.num_pairs,
    )
    found = plda.llr(vectors, *np.array(trials).T)
    difference = np.abs(found - scoring_loops.log_ratios(diagonal, plda.between, trials)).max()
    return _row(
        "plda",
        f"PLDA: {effort.num_utterances:,} × {size}, {effort.scored_trials:,} trials, one core",
        _scaled(pairs, effort.scored_trials / share),
        f"loop over 1/{effort.scored_trials / share:.0f}, projected beforehand, scaled",
        {"max_difference": float(difference)},
    )


def _listed(first: NDArray[np.int64], second: NDArray[np.int64]) -> list[tuple[int, int]]:
    return list(zip(first.tolist(), second.tolist(), strict=True))


def _total(found: dict[str, Any], turn: int, scales: dict[str, float], prefix: str) -> Spent:
    """What the three steps of a turn took together, each scaled."""
    spent = {name: found[prefix + name][turn] for name in _OURS}
    return Spent(
        wall_s=sum(scale * spent[name]["wall_s"] for name, scale in scales.items()),
        cpu_s=sum(scale * spent[name]["cpu_s"] for name, scale in scales.items()),
    )


def _scaled(pairs: Pairs, scale: float) -> Pairs:
    """The same with the reference's time times `scale`."""
    return Pairs(pairs.ours, [Spent(scale * spent.wall_s, scale * spent.cpu_s) for spent in pairs.theirs])


def _row(
    name: str,
    title: str,
    pairs: Pairs,
    reference_is: str,
    details: dict[str, float],
    target: Target | None = None,
) -> Row:
    """A row of seconds."""
    return Row(
        name,
        title,
        "s",
        ours=pairs.ours_s,
        reference=pairs.theirs_s,
        reference_is=reference_is,
        ratio=pairs.ratio,
        target=target,
        details={
            "num_pairs": len(pairs.ours),
            "ratio_min": min(pairs.ratios),
            "ratio_max": max(pairs.ratios),
            "ratio_of_cpu_time": pairs.cpu_ratio,
            "ours_s": [spent.wall_s for spent in pairs.ours],
            "ours_cpu_s": min(spent.cpu_s for spent in pairs.ours),
            "load_average": os.getloadavg(),
            **details,
        },
    )
