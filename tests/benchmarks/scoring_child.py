"""Cosine and AS-norm of a large evaluation in a process of its own: on all cores, and with its memory seen.

Run with a JSON object as the one argument; prints a JSON object on its last line. Imports nothing heavy
here: libraries count the cores that they may use when they are imported.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import Machine


def measure(machine: Machine, what: dict[str, Any]) -> dict[str, Any]:
    """Runs ours in full and the loop on a share, in turn, in one new process that may use all cores.

    Args:
        machine: Where it runs.
        what: num_utterances, embedding_size, num_cohort_speakers, top_k, num_trials; of these utterances
            and trials the loop works through share_utterances and share_trials; num_pairs.

    Returns:
        `cosine`, `statistics` and `as_norm`, and `loop_cosine`, `loop_statistics` and `loop_as_norm`, each a
        list of what was spent in each turn; `peak_mib` after the first turn of ours, embeddings included;
        `max_difference` of a few trials from a plain loop in float64.
    """
    command = [sys.executable, str(Path(__file__).resolve()), json.dumps({**what, "cores": machine.cores})]
    done = subprocess.run(command, env=machine.environment, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(what: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import scoring_loops
    from timing import spend

    from voxsrc.scoring import as_norm, cohort_statistics, cosine_scores

    generator = np.random.default_rng(0)
    size, top_k, share = what["embedding_size"], what["top_k"], what["share_utterances"]
    # A common part, as trained embeddings have: scores against the cohort are then not about zero.
    common = generator.standard_normal(size, np.float32) / 2
    vectors = generator.standard_normal((what["num_utterances"], size), np.float32)
    vectors += common
    cohort = generator.standard_normal((what["num_cohort_speakers"], size), np.float32) + common
    first, second = generator.integers(0, len(vectors), (2, what["num_trials"]))
    trials = list(
        zip(
            (first[: what["share_trials"]] % share).tolist(),
            (second[: what["share_trials"]] % share).tolist(),
            strict=True,
        )
    )
    spent: dict[str, list[dict[str, float]]] = {}
    results: dict[str, Any] = {}

    def step(name: str, work: Callable[[], Any]) -> None:
        spent.setdefault(name, []).append(asdict(spend(lambda: results.update({name: work()}))))

    peak_mib = 0.0
    for _ in range(what["num_pairs"]):
        step("cosine", lambda: cosine_scores(vectors, first, second))
        step("statistics", lambda: cohort_statistics(vectors, cohort, top_k=top_k))
        step("as_norm", lambda: as_norm(results["cosine"], first, second, results["statistics"]))
        peak_mib = peak_mib or _peak_mib()
        step("loop_cosine", lambda: scoring_loops.cosines(vectors, trials))
        step("loop_statistics", lambda: scoring_loops.cohort_moments(vectors[:share], cohort, top_k))
        step(
            "loop_as_norm",
            lambda: scoring_loops.as_norms(results["loop_cosine"], trials, results["loop_statistics"]),
        )
    few = trials[:50]
    exact = vectors[:share].astype(np.float64)
    used = sorted({row for pair in few for row in pair})
    found_moments = scoring_loops.cohort_moments(exact[used], cohort.astype(np.float64), top_k)
    moments = dict(zip(used, found_moments, strict=True))
    expected = [
        0.5 * sum((score - moments[row][0]) / moments[row][1] for row in pair)
        for score, pair in zip(scoring_loops.cosines(exact, few), few, strict=True)
    ]
    rows, columns = np.array(few).T
    found = as_norm(cosine_scores(vectors, rows, columns), rows, columns, results["statistics"])
    return {**spent, "peak_mib": peak_mib, "max_difference": float(np.abs(found - expected).max())}


def _peak_mib() -> float:
    """What was resident at most; unlike getrusage's figure, without the parent's from before the start."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _main() -> None:
    what = json.loads(sys.argv[1])
    os.sched_setaffinity(0, what["cores"])
    print(json.dumps(_measured(what)))


if __name__ == "__main__":
    _main()
