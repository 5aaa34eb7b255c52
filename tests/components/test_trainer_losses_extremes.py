"""`trainer.losses` by invariance, at extremes, under autocast and compiled."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from loss_cases import D, S, batch, built, each_loss
from trainer.losses import build_loss
from trainer.losses.base import unit_vectors

# Invariances.


@each_loss
def test_order_within_the_batch_does_not_matter(name: str, options: dict[str, Any]) -> None:
    loss = built(name, options)
    x, labels = batch(loss)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(9))
    before, after = loss(x, labels), loss(x[order], labels[order])
    assert after.loss.item() == pytest.approx(before.loss.item(), rel=1e-12)
    assert after.accuracy.item() == before.accuracy.item()


@pytest.mark.parametrize("name", ["angleproto", "ge2e", "am", "aam", "triplet"])
@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_length_of_embeddings_does_not_matter_to_cosines(name: str, factor: float) -> None:
    loss = built(name, {})
    x, labels = batch(loss)
    assert loss(factor * x, labels).loss.item() == pytest.approx(loss(x, labels).loss.item(), rel=1e-9)
    single = loss((factor * x).float(), labels).loss.item()
    assert single == pytest.approx(loss(x, labels).loss.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["angleproto", "ge2e", "proto", "triplet"])
def test_rotation_does_not_matter_to_metric_losses(name: str) -> None:
    loss = built(name, {})
    x, _ = batch(loss)
    rotation, _ = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=torch.Generator()))
    assert loss(x @ rotation).loss.item() == pytest.approx(loss(x).loss.item(), rel=1e-9)


def test_a_common_offset_does_not_matter_to_proto_even_in_float32() -> None:
    loss = build_loss("proto", embedding_dim=D, num_speakers=S)
    x = batch(loss)[0].float()
    assert loss(x + 1000.0).loss.item() == pytest.approx(loss(x).loss.item(), rel=1e-3)


@pytest.mark.parametrize("name", ["softmax", "am", "aam"])
def test_naming_speakers_otherwise_does_not_matter(name: str) -> None:
    loss = built(name, {})
    x, labels = batch(loss)
    before = loss(x, labels).loss.item()
    order = torch.randperm(S, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.copy_(parameter[order])
    assert loss(x, order.argsort()[labels]).loss.item() == pytest.approx(before, rel=1e-12)


def test_triplets_are_the_same_each_time_and_ties_go_to_the_first() -> None:
    loss: Any = build_loss("triplet", embedding_dim=2, num_speakers=3, mining="hardest", margin=1.0)
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    gradients: list[Any] = []
    for _ in range(3):
        leaf = x.clone().requires_grad_()
        loss(leaf).loss.backward()
        gradients.append(leaf.grad)
    assert all(torch.equal(gradients[0], gradient) for gradient in gradients)
    mined = loss._mined(
        torch.tensor([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [0.5, 0.5, 3.0]]),
        torch.eye(3, dtype=torch.bool),
        torch.tensor([[2.0], [2.0], [3.0]]),
    )
    assert mined[:, 0].tolist() == [1, 0, 0]


# Extremes.


EXTREMES: dict[str, Callable[[Tensor], Tensor]] = {
    "zero": torch.zeros_like,
    "all equal": torch.ones_like,
    "opposite": lambda x: (
        torch.where(torch.arange(len(x)).reshape(-1, *[1] * (x.dim() - 1)) % 2 == 0, 1.0, -1.0)
        * torch.ones_like(x)
    ),
    "one is zero": lambda x: x * (torch.arange(x.shape[-2])[:, None] > 0),
    "tiny": lambda x: x * 1e-30,
    "huge": lambda x: x * 1e12,
    "speakers far apart": lambda x: torch.eye(x.shape[-1])[torch.arange(x.numel() // D) % D].reshape(x.shape),
}


@each_loss
@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loss_and_gradients_are_finite(
    name: str, options: dict[str, Any], extreme: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(3)
    loss = build_loss(name, embedding_dim=D, num_speakers=S, **options)
    x, labels = batch(loss)
    x = EXTREMES[extreme](x.float())
    if dtype == torch.float16:
        x = x.clamp(-6e4, 6e4)
    x = x.to(dtype).requires_grad_()
    output = loss(x, labels)
    assert output.loss.isfinite()
    assert 0.0 <= output.accuracy.item() <= 1.0
    output.loss.backward()
    for gradient in (x.grad, *(parameter.grad for parameter in loss.parameters())):
        assert gradient is not None
        assert gradient.isfinite().all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", ["am", "aam"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_embeddings_on_and_opposite_to_their_centre(name: str, sign: float, dtype: torch.dtype) -> None:
    """cos = ±1 exactly and within rounding, where the derivative of the angle is infinite."""
    torch.manual_seed(3)
    loss = build_loss(name, embedding_dim=D, num_speakers=S).to(dtype)
    weight = loss.get_parameter("weight")
    with torch.no_grad():
        weight[0].zero_()[0] = 1.0  # its own length without rounding
    x = (sign * weight.detach() * torch.linspace(1.0, 5.0, S, dtype=dtype)[:, None]).requires_grad_()
    loss(x, torch.arange(S)).loss.backward()
    for gradient in (x.grad, weight.grad):
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e3


def test_a_zero_vector_gets_no_gradient_and_its_neighbours_theirs() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e-9, 0.0]], requires_grad=True)
    unit = unit_vectors(x)
    assert unit.tolist() == [[0.0, 0.0], [pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]
    (gradient,) = torch.autograd.grad(unit.sum(), x)
    assert gradient[[0, 2]].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert gradient[1].tolist() == [pytest.approx(0.032), pytest.approx(-0.024)]


@each_loss
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_embedding_breaks_the_loss_visibly(name: str, options: dict[str, Any], value: float) -> None:
    loss = built(name, options)
    x, labels = batch(loss)
    x.view(-1, D)[0, 1] = value
    assert not loss(x, labels).loss.isfinite()


@each_loss
def test_autocast_does_not_lower_the_precision(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(3)
    loss = build_loss(name, embedding_dim=D, num_speakers=S, **options)
    x, labels = batch(loss)
    expected = loss(x.float(), labels).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = loss(x.float(), labels).loss
    assert within.dtype == torch.float32
    assert torch.equal(within, expected)


@pytest.mark.parametrize("name", ["softmax", "am", "aam", "softmaxproto", "ge2e", "triplet"])
def test_compiles_whole_and_once_for_all_margins(name: str) -> None:
    compiled_graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        compiled_graphs.append(graph)
        return graph.forward

    loss = build_loss(name, embedding_dim=D, num_speakers=S)
    compiled: Any = torch.compile(loss, backend=backend, fullgraph=True)
    x, labels = batch(loss)
    for margin in (0.0, 0.1, 0.2):
        if "margin" in dict(loss.named_buffers()):
            loss.set_margin(margin)
        assert compiled(x.float(), labels).loss.item() == pytest.approx(loss(x.float(), labels).loss.item())
    assert len(compiled_graphs) == 1
