"""The operating point of equal errors: one rule for the command and the report."""

from pathlib import Path

import numpy as np
import pytest

from voxsrc.commands.metrics import summarise
from voxsrc.metrics import eer_point, equal_error_rate, error_rates


def drawn_trials(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.append(generator.integers(0, 2, 58), [0, 1])
    return generator.standard_normal(60) + labels, labels


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_is_nearer_to_equal_errors(seed: int) -> None:
    scores, labels = drawn_trials(seed)
    point = eer_point(error_rates(scores, labels))
    differences = [
        abs(np.mean(scores[labels == 1] < score) - np.mean(scores[labels == 0] >= score)) for score in scores
    ]
    assert point.threshold == pytest.approx(scores[int(np.argmin(differences))])
    assert point.false_accepts == pytest.approx(np.mean(scores[labels == 0] >= point.threshold))
    assert point.false_rejects == pytest.approx(np.mean(scores[labels == 1] < point.threshold))


def test_its_threshold_is_finite_where_every_score_is_the_same() -> None:
    point = eer_point(error_rates([0.5, 0.5, 0.5], [0, 1, 1]))
    assert (point.threshold, point.false_accepts, point.false_rejects) == (0.5, 1.0, 0.0)


def test_its_rates_enclose_the_equal_error_rate() -> None:
    for seed in range(20):
        rates = error_rates(*drawn_trials(seed))
        point = eer_point(rates)
        low, high = sorted((point.false_accepts, point.false_rejects))
        assert low - 1e-12 <= equal_error_rate(rates) <= high + 1e-12


def test_the_command_prints_that_threshold(tmp_path: Path) -> None:
    for seed in range(20):
        scores, labels = drawn_trials(seed)
        pairs = [f"a/s/{place}.wav b/s/{place}.wav" for place in range(len(scores))]
        trials, scored = tmp_path / "trials.txt", tmp_path / "scores.txt"
        trials.write_text("".join(f"{label} {pair}\n" for label, pair in zip(labels, pairs, strict=True)))
        scored.write_text(
            "".join(f"{score!r} {pair}\n" for score, pair in zip(scores.tolist(), pairs, strict=True))
        )
        found = summarise(str(scored), str(trials), num_resamples=0)["eer_threshold"]
        assert found == eer_point(error_rates(scores, labels)).threshold
