"""The same numbers by plain loops, one trial after the other: what the metrics are measured beside."""

import math
from collections.abc import Sequence


def error_points(scores: Sequence[float], labels: Sequence[int]) -> list[tuple[float, float]]:
    """(false accepts, false rejects) from rejecting everything to accepting everything."""
    num_targets = sum(labels)
    num_others = len(labels) - num_targets
    points, accepts, rejects, last = [(0.0, 1.0)], 0, num_targets, math.inf
    for score, label in sorted(zip(scores, labels, strict=True), reverse=True):
        if score != last and last != math.inf:
            points.append((accepts / num_others, rejects / num_targets))
        last = score
        if label:
            rejects -= 1
        else:
            accepts += 1
    points.append((accepts / num_others, rejects / num_targets))
    return points


def equal_error_rate(points: Sequence[tuple[float, float]]) -> float:
    """Where the line through the points has equal rates."""
    x, y = points[0]
    for next_x, next_y in points[1:]:
        if next_y <= next_x:
            part = (y - x) / ((y - x) - (next_y - next_x))
            return x + part * (next_x - x)
        x, y = next_x, next_y
    raise AssertionError("the curve ends at (1, 0)")


def min_dcf(points: Sequence[tuple[float, float]], p_target: float) -> float:
    """The least normalised cost, with C_miss = C_fa = 1."""
    least = math.inf
    for accepts, rejects in points:
        least = min(least, p_target * rejects + (1 - p_target) * accepts)
    return least / min(p_target, 1 - p_target)


def headline(scores: Sequence[float], labels: Sequence[int]) -> tuple[float, float, float]:
    """EER, minDCF at P_target 0.05 and at 0.01."""
    points = error_points(scores, labels)
    return equal_error_rate(points), min_dcf(points, 0.05), min_dcf(points, 0.01)


def both_cllrs(llrs: Sequence[float], labels: Sequence[int]) -> tuple[float, float]:
    """Cllr and min Cllr."""
    return cllr(llrs, labels), min_cllr(llrs, labels)


def cllr(llrs: Sequence[float], labels: Sequence[int]) -> float:
    """Bits; moderate ratios only, as exp() is taken of them."""
    sums, counts = [0.0, 0.0], [0, 0]
    for llr, label in zip(llrs, labels, strict=True):
        sums[label] += math.log2(1 + math.exp(-llr if label else llr))
        counts[label] += 1
    return (sums[0] / counts[0] + sums[1] / counts[1]) / 2


def min_cllr(scores: Sequence[float], labels: Sequence[int]) -> float:
    """Bits, by pooling adjacent violators; of equal scores, targets come first, so that they are pooled."""
    num_targets = sum(labels)
    num_others = len(labels) - num_targets
    pools: list[tuple[int, int]] = []
    for _, is_other in sorted((score, 1 - label) for score, label in zip(scores, labels, strict=True)):
        targets, others = 1 - is_other, is_other
        while pools and pools[-1][0] * (targets + others) >= targets * sum(pools[-1]):
            before = pools.pop()
            targets, others = targets + before[0], others + before[1]
        pools.append((targets, others))
    bits = 0.0
    for targets, others in pools:
        if targets and others:
            ratio = (targets / num_targets) / (others / num_others)
            bits += targets / num_targets * math.log2(1 + 1 / ratio)
            bits += others / num_others * math.log2(1 + ratio)
    return bits / 2
