"""Every kind of loss in small, what it is given, and plain loops that compute the same in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.losses import SpeakerLoss, build_loss

Array = NDArray[np.float64]

# Of embeddings, speakers, utterances; of groups and the utterances in one.
D, S, B, N, M = 5, 7, 6, 4, 3
CASES: list[tuple[str, dict[str, Any]]] = [
    ("softmax", {}),
    ("am", {"margin": 0.3, "scale": 8.0}),
    ("aam", {"margin": 0.4, "scale": 8.0}),
    ("aam", {"margin": 0.4, "scale": 8.0, "easy_margin": True}),
    ("aam", {"margin": 0.4, "scale": 8.0, "num_subcentres": 3}),
    ("proto", {}),
    ("angleproto", {"initial_scale": 4.0, "initial_bias": 1.0}),
    ("softmaxproto", {"initial_scale": 4.0}),
    ("ge2e", {"initial_scale": 4.0}),
    ("ge2e", {"initial_scale": 4.0, "min_cosine": 0.1}),
    ("triplet", {"margin": 0.5, "mining": "hardest"}),
    ("triplet", {"margin": 0.5, "mining": "semi_hard"}),
]

each_loss = pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value))


def built(name: str, options: dict[str, Any]) -> SpeakerLoss:
    """The loss in float64, weights from a fixed seed, the margin in full precision."""
    torch.manual_seed(3)
    loss = build_loss(name, embedding_dim=D, num_speakers=S, **options).double()
    if "margin" in options:
        loss.set_margin(options["margin"])
    return loss


def batch(loss: SpeakerLoss, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Embeddings in float64 and labels as the loss wants them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (N, M, D) if loss.needs_groups else (B, D)
    labels = torch.randperm(S, generator=generator)[: shape[0]]
    return torch.randn(shape, generator=generator, dtype=torch.float64), labels


# Plain loops over lists of vectors, written from the papers' formulas.


def log_softmax_loss(scores: list[list[float]], targets: list[int]) -> float:
    """Mean of -log softmax(row)[target]."""
    losses = []
    for row, target in zip(scores, targets, strict=True):
        losses.append(math.log(sum(math.exp(score - row[target]) for score in row)))
    return sum(losses) / len(losses)


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


def angular_margin(cos: float, margin: float, easy: bool) -> float:
    angle = math.acos(max(-1.0, min(1.0, cos)))
    if easy:
        return math.cos(angle + margin) if angle < math.pi / 2 else cos
    return math.cos(angle + margin) if angle + margin < math.pi else cos - 1 + math.cos(margin)


def reference(loss: SpeakerLoss, name: str, options: dict[str, Any], x: Array, labels: list[int]) -> float:
    weights = {key: value.detach().numpy() for key, value in loss.named_parameters()}
    if name == "softmax":
        scores = [[float(w @ u + b) for w, b in zip(*weights.values(), strict=True)] for u in x]
        return log_softmax_loss(scores, labels)
    if name in ("am", "aam"):
        centres = weights["weight"].reshape(S, -1, D)
        scores = [[max(cosine(u, w) for w in centres[s]) for s in range(S)] for u in x]
        for row, label in zip(scores, labels, strict=True):
            if name == "am":
                row[label] -= options["margin"]
            else:
                row[label] = angular_margin(row[label], options["margin"], options.get("easy_margin", False))
        return log_softmax_loss([[options["scale"] * score for score in row] for row in scores], labels)
    (w,) = [math.log1p(math.exp(r)) + 1e-6 for key, r in weights.items() if "raw_scale" in key] or [0.0]
    b = options.get("initial_bias", -5.0)
    own = list(range(N))
    means = [x[n, 1:].mean(axis=0) for n in own]
    if name == "proto":
        return log_softmax_loss([[-float(sum((x[j, 0] - means[k]) ** 2)) for k in own] for j in own], own)
    if name in ("angleproto", "softmaxproto"):
        proto = log_softmax_loss([[w * cosine(x[j, 0], means[k]) + b for k in own] for j in own], own)
        if name == "angleproto":
            return proto
        linear, bias = weights["softmax.linear.weight"], weights["softmax.linear.bias"]
        scores = [[float(linear[s] @ x[n, m] + bias[s]) for s in range(S)] for n in own for m in range(M)]
        return proto + log_softmax_loss(scores, [labels[n] for n in own for _ in range(M)])
    if name == "ge2e":
        scores, targets = [], []
        for j in own:
            for i in range(M):
                without = np.delete(x[j], i, axis=0).sum(axis=0)
                row = [cosine(x[j, i], without if k == j else x[k].sum(axis=0)) for k in own]
                scores.append([w * max(cos, options.get("min_cosine", -2.0)) + b for cos in row])
                targets.append(j)
        return log_softmax_loss(scores, targets)
    assert name == "triplet"
    losses: list[float] = []
    for j in own:
        for i in range(1, M):
            positive = 2 - 2 * cosine(x[j, 0], x[j, i])
            negatives = [2 - 2 * cosine(x[j, 0], x[k, m]) for k in own if k != j for m in range(1, M)]
            farther = [d for d in negatives if d > positive]
            if options["mining"] == "hardest":
                negative = min(negatives)
            else:
                negative = min(farther) if farther else max(negatives)
            losses.append(max(0.0, positive - negative + options["margin"]))
    return sum(losses) / len(losses)
