"""The ROC's convex hull, and curves thinned for plots."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxsrc.metrics import (
    ErrorRates,
    MetricError,
    det_points,
    equal_error_rate,
    error_rates,
    min_dcf,
    probit,
    roc_convex_hull,
    roc_points,
)

trials = st.lists(st.tuples(st.integers(-6, 6), st.integers(0, 1)), min_size=2, max_size=60).filter(
    lambda rows: {label for _, label in rows} == {0, 1}
)


def random_rates(num_trials: int, distance: float = 2.0) -> ErrorRates:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, num_trials)
    return error_rates(distance * labels + generator.standard_normal(num_trials), labels)


def assert_is_hull(hull: ErrorRates, rates: ErrorRates) -> None:
    x, y = hull.false_accepts, hull.false_rejects
    steps_x, steps_y = np.diff(x), np.diff(y)
    assert (steps_x[:-1] * steps_y[1:] > steps_x[1:] * steps_y[:-1]).all(), "convex"
    assert ((steps_x > 0) | (steps_y < 0)).all(), "no point twice"
    # Right of a vertical first step the hull is a function; no point of the curve lies below it.
    start = int(np.searchsorted(x, 0.0, side="right")) - 1
    beneath = np.interp(rates.false_accepts, x[start:], y[start:])
    assert (rates.false_rejects >= beneath - 1e-12).all(), "below all points"
    points = set(zip(rates.thresholds, rates.false_accepts, rates.false_rejects, strict=True))
    assert set(zip(hull.thresholds, x, y, strict=True)) <= points


@settings(max_examples=200)
@given(rows=trials)
def test_the_hull_is_convex_and_below_all_points(rows: list[tuple[float, int]]) -> None:
    rates = error_rates(*zip(*rows, strict=True))
    hull = roc_convex_hull(rates)
    assert_is_hull(hull, rates)
    for p_target in (0.01, 0.05, 0.5, 0.99):
        assert min_dcf(hull, p_target) == pytest.approx(min_dcf(rates, p_target), abs=1e-12)
    assert equal_error_rate(hull) <= equal_error_rate(rates) + 1e-12


def test_the_hull_of_a_curve_that_gives_up_one_corner_a_time() -> None:
    # A convex arc that its last point, far below, takes away from the end: each corner only after the next.
    arc = np.linspace(0.0, 0.9, 50_001)
    accepts = np.concatenate([arc, [0.9001, 1.0]])
    rejects = np.concatenate([0.5 + 0.5 * (1 - arc) ** 2, [0.0, 0.0]])
    rates = ErrorRates(-np.arange(len(accepts), dtype=float), accepts, rejects)
    assert_is_hull(roc_convex_hull(rates), rates)


def test_points_that_weigh_nothing_do_not_hide_a_corner() -> None:
    scores, labels = [5.0, 4.0, 3.0, 2.0, 1.0], [1, 1, 0, 0, 0]
    rates = error_rates(scores, labels, [1, 0, 0, 0, 1])
    hull = roc_convex_hull(rates)
    assert hull.false_accepts.tolist() == [0.0, 0.0, 1.0]
    assert hull.false_rejects.tolist() == [1.0, 0.0, 0.0]
    thinned = roc_points(rates)
    assert thinned.false_accepts.tolist() == [0.0, 0.0, 1.0]
    assert thinned.false_rejects.tolist() == [1.0, 0.0, 0.0]


@settings(max_examples=100)
@given(rows=trials)
def test_a_short_curve_keeps_its_steps(rows: list[tuple[float, int]]) -> None:
    rates = error_rates(*zip(*rows, strict=True))
    thinned = roc_points(rates)
    # Along the way of a monotone curve, sum of both axes, both coordinates are functions.
    way = 1 + rates.false_accepts - rates.false_rejects
    kept_way = 1 + thinned.false_accepts - thinned.false_rejects
    np.testing.assert_allclose(
        np.interp(way, kept_way, thinned.false_accepts), rates.false_accepts, atol=1e-12
    )
    assert equal_error_rate(thinned) == pytest.approx(equal_error_rate(rates), abs=1e-12)


@pytest.mark.parametrize("max_points", [2, 3, 50, 1000])
def test_a_long_curve_is_thinned_evenly(max_points: int) -> None:
    rates = random_rates(30_000, distance=0.5)
    thinned = roc_points(rates, max_points)
    assert len(thinned.thresholds) <= max_points
    assert set(thinned.thresholds) <= set(rates.thresholds)
    for axis in ("thresholds", "false_accepts", "false_rejects"):
        kept, whole = getattr(thinned, axis), getattr(rates, axis)
        assert kept[0] == whole[0] and kept[-1] == whole[-1]
        assert (np.diff(kept) <= 0).all() or (np.diff(kept) >= 0).all()
    # Kept points on either side are near each dropped one, unless the curve jumps there in one step.
    way = rates.false_accepts - rates.false_rejects
    kept_way = thinned.false_accepts - thinned.false_rejects
    after = np.searchsorted(kept_way, way)
    nearest = np.minimum(kept_way[after] - way, way - kept_way[np.maximum(after - 1, 0)])
    assert nearest.max() < 4 / max_points
    assert np.interp(0.1, thinned.false_accepts, thinned.false_rejects) == pytest.approx(
        np.interp(0.1, rates.false_accepts, rates.false_rejects), abs=4 / max_points
    )


def test_det_points_are_finite_and_straight_for_normal_scores() -> None:
    points = det_points(random_rates(50_000), max_points=300, limit=1e-4)
    x, y = points.probit_false_accepts, points.probit_false_rejects
    assert 100 < len(x) <= 300 and len(x) == len(y) == len(points.rates.thresholds)
    assert np.isfinite(x).all() and np.isfinite(y).all()
    assert (np.diff(x) >= 0).all() and (np.diff(y) <= 0).all()
    bound = 3.719016
    np.testing.assert_allclose([x[0], x[-1], y[0], y[-1]], [-bound, bound, bound, -bound], atol=1e-6)
    # Normal scores of equal variance, 2 apart: probits add up to -2.
    inside = (np.abs(x) < 2) & (np.abs(y) < 2)
    assert inside.sum() > 50
    np.testing.assert_allclose((x + y)[inside], -2.0, atol=0.1)


def test_probits_known_from_tables() -> None:
    quantiles = probit([0.025, 0.5, 0.975, 0.99])
    np.testing.assert_allclose(quantiles, [-1.959964, 0.0, 1.959964, 2.326348], atol=1e-6)
    assert probit([]).shape == (0,)


def test_what_cannot_be_drawn_is_refused() -> None:
    rates = random_rates(100)
    with pytest.raises(MetricError, match="max_points is 1"):
        roc_points(rates, 1)
    for limit in (0.0, 0.5, np.nan):
        with pytest.raises(MetricError, match="limit is"):
            det_points(rates, limit=limit)
    with pytest.raises(MetricError, match="above 0 and below 1"):
        probit([0.5, 1.0])
