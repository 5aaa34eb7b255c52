"""`trainer.losses` against plain loops in float64, by gradient check and by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from loss_cases import batch, built, each_loss, reference
from trainer.losses import build_loss


@each_loss
@pytest.mark.parametrize("seed", range(5))
def test_loss_equals_plain_loops(name: str, options: dict[str, Any], seed: int) -> None:
    loss = built(name, options)
    embeddings, labels = batch(loss, seed)
    expected = reference(loss, name, options, embeddings.numpy(), labels.tolist())
    assert loss(embeddings, labels).loss.item() == pytest.approx(expected, rel=1e-9)
    assert loss(embeddings.float(), labels).loss.item() == pytest.approx(expected, rel=1e-5)


@each_loss
def test_gradients_of_embeddings_and_weights(name: str, options: dict[str, Any]) -> None:
    loss = built(name, options)
    embeddings, labels = batch(loss)
    parameters = dict(loss.named_parameters())

    def evaluate(x: Tensor, *values: Tensor) -> Tensor:
        replaced = dict(zip(parameters, values, strict=True))
        output: Tensor = torch.func.functional_call(loss, replaced, (x, labels)).loss
        return output

    assert torch.autograd.gradcheck(evaluate, (embeddings.requires_grad_(), *parameters.values()))


# By hand.


def two_speaker_groups() -> Tensor:
    """(2, 2, 2): unit vectors at 0° and 60°, and at 90° and 180°."""
    return torch.tensor([[[1.0, 0.0], [0.5, math.sqrt(0.75)]], [[0.0, 1.0], [-1.0, 0.0]]])


def test_by_hand_angular_proto() -> None:
    # cos: own 0.5 and other -1; other √.75 and own 0. Two columns: softplus(w (other - own)).
    loss = build_loss("angleproto", embedding_dim=2, num_speakers=2)
    expected = (math.log1p(math.exp(10 * -1.5)) + math.log1p(math.exp(10 * math.sqrt(0.75)))) / 2
    output = loss(two_speaker_groups())
    assert output.loss.item() == pytest.approx(expected, rel=1e-6)
    assert output.accuracy.item() == 0.5


def test_by_hand_proto() -> None:
    # |x - y|² = 2 - 2 cos for unit vectors: own 1, other 4; other 2 - √3, own 2.
    output = build_loss("proto", embedding_dim=2, num_speakers=2)(two_speaker_groups())
    expected = (math.log1p(math.exp(1 - 4)) + math.log1p(math.exp(2 - (2 - math.sqrt(3))))) / 2
    assert output.loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mining", ["hardest", "semi_hard"])
def test_by_hand_triplet(mining: str) -> None:
    # First anchor: 1 - 4 + 0.5 < 0. Second: 2 - (2 - √3) + 0.5; its one negative is nearer than the positive.
    loss = build_loss("triplet", embedding_dim=2, num_speakers=2, margin=0.5, mining=mining)
    output = loss(two_speaker_groups())
    assert output.loss.item() == pytest.approx((math.sqrt(3) + 0.5) / 2, rel=1e-6)
    assert output.accuracy.item() == 0.5


def test_by_hand_ge2e() -> None:
    # Centroids point to 30° and 135°; without the utterance the own one is the speaker's other utterance.
    def cos(degrees: float) -> float:
        return math.cos(math.radians(degrees))

    gaps = [cos(135) - cos(60), cos(75) - cos(60), cos(60) - cos(90), cos(150) - cos(90)]
    expected = sum(math.log1p(math.exp(10 * gap)) for gap in gaps) / 4
    output = build_loss("ge2e", embedding_dim=2, num_speakers=2)(two_speaker_groups())
    assert output.loss.item() == pytest.approx(expected, rel=1e-6)
    assert output.accuracy.item() == 0.75


def classified(name: str, degrees: float, **options: Any) -> float:
    """Loss of one utterance at this angle from its speaker, whose weight is at 0° and the other's at 90°."""
    loss = build_loss(name, embedding_dim=2, num_speakers=2, **options)
    with torch.no_grad():
        loss.get_parameter("weight").copy_(torch.tensor([[3.0, 0.0], [0.0, 0.2]]))
    angle = math.radians(degrees)
    output: Tensor = loss(torch.tensor([[2 * math.cos(angle), 2 * math.sin(angle)]]), torch.tensor([0])).loss
    return output.item()


def test_by_hand_additive_margins() -> None:
    # 30° and 60° to the two weights.
    am = classified("am", 30, margin=0.2, scale=10.0)
    assert am == pytest.approx(math.log1p(math.exp(10 * (0.5 - (math.sqrt(0.75) - 0.2)))), rel=1e-5)
    aam = classified("aam", 30, margin=math.pi / 6, scale=10.0)
    assert aam == pytest.approx(math.log(2), rel=1e-5)  # 30° of margin make both 60°


def test_angular_margin_is_continuous_and_monotonic_to_the_opposite_side() -> None:
    angles = np.concatenate([np.arange(0.5, 180, 0.5), [180 - 28.648 - 1e-3, 180 - 28.648 + 1e-3]])
    angles.sort()
    loss: Any = build_loss("aam", embedding_dim=2, num_speakers=2, margin=0.5).double()
    loss.set_margin(0.5)
    cosines = torch.from_numpy(np.cos(np.radians(angles)))
    values = loss.penalised(cosines).numpy()
    assert (np.diff(values) < 0).all()
    # Slopes of cos are at most 1 a radian.
    assert (-np.diff(values) <= np.radians(np.diff(angles)) + 1e-9).all()
    assert (values < cosines.numpy()).all()


def test_easy_margin_spares_the_far_side() -> None:
    options = {"margin": 0.3, "scale": 10.0}
    near, far = 60.0, 120.0
    assert classified("aam", near, easy_margin=True, **options) == classified("aam", near, **options)
    no_margin = classified("aam", far, **{**options, "margin": 0.0})
    assert classified("aam", far, easy_margin=True, **options) == pytest.approx(no_margin)
    assert classified("aam", far, **options) > no_margin + 1


def test_subcentres_take_the_nearest() -> None:
    plain, many = (build_loss("aam", embedding_dim=2, num_speakers=2, num_subcentres=k) for k in (1, 2))
    with torch.no_grad():
        plain.get_parameter("weight").copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        far = [-1.0, -1.0]
        many.get_parameter("weight").copy_(torch.tensor([far, [1.0, 0.0], [0.0, 1.0], far]))
    x, labels = torch.tensor([[1.0, 0.3], [0.2, 1.0]]), torch.tensor([0, 1])
    assert many(x, labels).loss.item() == pytest.approx(plain(x, labels).loss.item())


def test_accuracy_leaves_the_margin_out() -> None:
    loss = build_loss("aam", embedding_dim=2, num_speakers=2, margin=1.0)
    with torch.no_grad():
        loss.get_parameter("weight").copy_(torch.eye(2))
    x, labels = torch.tensor([[1.0, 0.5], [1.0, 0.5], [0.5, 1.0], [0.5, 1.0]]), torch.tensor([0, 1, 1, 1])
    output = loss(x.requires_grad_(), labels)
    assert output.accuracy.item() == 0.75
    assert not output.accuracy.requires_grad
