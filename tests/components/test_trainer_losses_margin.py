"""The margin and the scale of the losses: where they start, and what a training makes of them."""

import math
from typing import Any

import pytest
import torch

from loss_cases import D, N, S, batch, built, reference
from trainer.losses import LOSSES, build_loss
from trainer.losses.base import unit_vectors
from voxsrc.errors import ConfigError


@pytest.mark.parametrize("name", ["am", "aam", "triplet"])
def test_set_margin_equals_building_with_it(name: str) -> None:
    torch.manual_seed(1)
    changed = build_loss(name, embedding_dim=D, num_speakers=S, margin=0.0)
    torch.manual_seed(1)
    fixed = build_loss(name, embedding_dim=D, num_speakers=S, margin=0.35)
    x, labels = batch(changed)
    before = changed(x, labels).loss.item()
    changed.set_margin(0.35)
    assert changed(x, labels).loss.item() == fixed(x, labels).loss.item() > before
    assert "margin" not in changed.state_dict()


@pytest.mark.parametrize("name", ["am", "aam"])
def test_without_a_margin_both_are_normalised_softmax(name: str) -> None:
    loss = built(name, {"margin": 0.0, "scale": 5.0})
    x, labels = batch(loss)
    expected = reference(loss, "am", {"margin": 0.0, "scale": 5.0}, x.numpy(), labels.tolist())
    assert loss(x, labels).loss.item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    ("name", "margin"), [("am", -0.1), ("am", 2.0), ("aam", 1.6), ("aam", math.nan), ("triplet", 4.0)]
)
def test_a_margin_out_of_range_is_refused(name: str, margin: float) -> None:
    loss = build_loss(name, embedding_dim=D, num_speakers=S)
    with pytest.raises(ConfigError, match=f"margin is {margin:g}; expected from 0 to below"):
        loss.set_margin(margin)
    if not math.isnan(margin):
        with pytest.raises(ConfigError, match=f"loss: margin is {margin:g}; expected"):
            build_loss(name, embedding_dim=D, num_speakers=S, margin=margin)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"am", "aam", "triplet"}))
def test_a_loss_without_a_margin_says_so(name: str) -> None:
    loss = build_loss(name, embedding_dim=D, num_speakers=S)
    with pytest.raises(ConfigError, match="has no margin; remove the margin schedule"):
        loss.set_margin(0.1)


# The scale of the cosines.


@pytest.mark.parametrize("initial", [1e-3, 0.5, 10.0, 64.0, 500.0])
def test_scale_starts_where_asked(initial: float) -> None:
    loss = build_loss("angleproto", embedding_dim=D, num_speakers=S, initial_scale=initial)
    score: Any = loss.get_submodule("score")
    assert score.scale.item() == pytest.approx(initial, rel=1e-5)


@pytest.mark.parametrize("name", ["angleproto", "softmaxproto", "ge2e"])
def test_scale_stays_positive_whatever_the_optimizer_does(name: str) -> None:
    loss = build_loss(name, embedding_dim=2, num_speakers=2)
    score: Any = loss.get_submodule("angular_proto.score" if name == "softmaxproto" else "score")
    # Each speaker sits where the other's prototype is: the gradient pulls the scale down without end.
    x = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[-1.0, 0.0], [1.0, 0.0]]])
    optimizer = torch.optim.SGD([score.raw_scale], lr=50.0)
    for _ in range(20):
        optimizer.zero_grad()
        output: Any = loss(x, torch.tensor([0, 1]))
        output.loss.backward()
        optimizer.step()
    assert score.raw_scale.item() < -10  # a plain w would be negative here
    assert 0.0 < score.scale.item() < 1e-3


def test_scale_learns_as_a_plain_factor_would() -> None:
    loss = built("angleproto", {})
    x, _ = batch(loss)
    score: Any = loss.get_submodule("score")
    loss(x).loss.backward()
    plain = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    cosines = unit_vectors(x[:, 0]) @ unit_vectors(x[:, 1:].mean(dim=1)).T
    plain_loss = torch.nn.functional.cross_entropy(plain * cosines - 5.0, torch.arange(N))
    (expected,) = torch.autograd.grad(plain_loss, plain)
    assert score.raw_scale.grad.item() == pytest.approx(expected.item(), rel=1e-4)
    assert score.bias.grad.item() == pytest.approx(0.0, abs=1e-12)
