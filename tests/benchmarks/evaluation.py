"""Measures metrics, scoring and embedding against the issue's targets; prints one table.

    python tests/benchmarks/evaluation.py [--json FILE] [--quick] [--only metrics scoring embedding]

Scores and scored embeddings are random, of VoxCeleb1's sizes; speech is the bundled. Comparisons run in turn,
A B A B …, and ratios are medians over the pairs: compare them, not absolute figures, between machines. All
rows but those that say otherwise stay on one core. Linux only. Needs the dev extra.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import describe, pin_to_one_core

if TYPE_CHECKING:
    from evaluation_bench import EvaluationBench
    from report import Row

_GROUPS = ("metrics", "scoring", "embedding")


def main() -> None:
    """Measures, prints, writes."""
    parsed = _parse()
    machine = pin_to_one_core()
    # Only now: NumPy counts the cores that it may use when it is imported.
    from evaluation_bench import QUICK, EvaluationBench, EvaluationEffort
    from report import table, write_json

    conditions: dict[str, Any] = {**describe(machine), "quick": parsed.quick}
    rows = []
    with tempfile.TemporaryDirectory(prefix="voxsrc-benchmark-", dir=parsed.scratch) as scratch:
        effort = QUICK if parsed.quick else EvaluationEffort()
        for row in _rows(EvaluationBench(machine, Path(scratch), effort), parsed.only):
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
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--quick", action="store_true", help="a few trials: only shows that it runs")
    parser.add_argument(
        "--only", nargs="+", choices=_GROUPS, default=_GROUPS, help="groups of rows to measure"
    )
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    return parser.parse_args()


def _rows(bench: "EvaluationBench", groups: list[str]) -> "Iterator[Row]":
    if "metrics" in groups:
        import metric_rows

        yield from metric_rows.rows(bench)
    if "scoring" in groups:
        import scoring_rows

        yield from scoring_rows.rows(bench)
    if "embedding" in groups:
        import embedding_rows

        yield from embedding_rows.rows(bench)


def _summary(conditions: dict[str, Any]) -> str:
    before, after = conditions["load_average"], conditions["load_average_after"]
    return (
        f"{conditions['cpu']}, {conditions['cores']} core(s), NumPy {conditions['packages']['numpy']}; "
        f"load average before {before}, after {after}"
        + ("; quick: the figures mean nothing" if conditions["quick"] else "")
    )


if __name__ == "__main__":
    main()
