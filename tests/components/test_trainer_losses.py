"""`trainer.losses` against plain loops in float64, by hand, by gradient check, by invariance, at extremes."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.losses import LOSSES, SpeakerLoss, build_loss, check_loss
from trainer.losses.base import unit_vectors
from voxsrc.errors import ConfigError

Array = NDArray[np.float64]

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


# The margin schedule.


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


# Interface and errors.


def test_needs_are_declared() -> None:
    groups = {name for name, loss in LOSSES.items() if loss.needs_groups}
    classes = {name for name, loss in LOSSES.items() if loss.needs_classes}
    assert groups == {"proto", "angleproto", "softmaxproto", "ge2e", "triplet"}
    assert classes == {"softmax", "am", "aam", "softmaxproto"}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_weights_follow_the_seed_and_are_saved(name: str) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_loss(name, embedding_dim=D, num_speakers=S).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    if LOSSES[name].needs_classes:
        assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("angelproto", {}, "loss: there is no loss 'angelproto', did you mean angleproto? (known: aam, am,"),
        ("aam", {"margins": 0.2}, "loss.margins: unknown key, did you mean margin?"),
        ("aam", {"margin": "big"}, "loss.margin: found 'big' (str), expected a number"),
        ("aam", {"num_subcentres": 0}, "loss: num_subcentres is 0; expected 1 or more"),
        ("am", {"scale": 0}, "loss: scale is 0; expected a number above 0"),
        ("softmax", {"margin": 0.2}, "loss.margin: unknown key, none is known here"),
        ("angleproto", {"initial_scale": -10}, "loss: initial_scale is -10; expected a number above 1e-06"),
        ("angleproto", {"initial_bias": math.inf}, "loss: initial_bias is inf; expected a finite number"),
        ("ge2e", {"min_cosine": 1.0}, "loss: min_cosine is 1; expected from -1 to below 1, or null"),
        (
            "triplet",
            {"mining": "hard"},
            "loss.mining: found 'hard' (str), expected one of hardest, semi_hard",
        ),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        build_loss(name, embedding_dim=D, num_speakers=S, **options)


def test_options_can_be_checked_before_there_are_data() -> None:
    assert check_loss("aam", {"margin": 1}).margin == 1.0
    with pytest.raises(ConfigError, match=r"stages\.1\.loss\.x: unknown key"):
        check_loss("proto", {"x": 1}, "stages.1.loss")


@pytest.mark.parametrize(("sizes", "message"), [((0, 5), "embedding_dim is 0"), ((5, 1), "has 1 speakers")])
def test_wrong_sizes_are_refused(sizes: tuple[int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_loss("aam", embedding_dim=sizes[0], num_speakers=sizes[1])


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [
        ("aam", torch.tensor([0, 7]), "a label is 7; expected 0..6: the loss was built for 7 speakers"),
        ("softmax", torch.tensor([-1, 3]), "a label is -1; expected 0..6"),
        ("softmaxproto", torch.tensor([0, 7]), "a label is 7; expected 0..6"),
        ("softmaxproto", torch.tensor([4, 4]), "the speaker 4 is twice in a batch of 2 groups"),
        ("angleproto", torch.tensor([9, 9]), "the speaker 9 is twice in a batch of 2 groups"),
        ("aam", torch.tensor([0.0, 1.0]), "labels are torch.float32; expected torch.int64"),
        ("aam", torch.tensor([0, 1, 2]), "labels have the shape (3,); expected one per utterance, (2,)"),
        (
            "ge2e",
            torch.tensor([[0, 1]]),
            "labels have the shape (1, 2); expected one per speaker of the batch",
        ),
        ("aam", None, "AAMSoftmax: labels are missing; expected one per utterance"),
        ("softmaxproto", None, "SoftmaxProto: labels are missing; expected one per speaker of the batch"),
    ],
)
def test_wrong_labels_are_refused(name: str, labels: Tensor | None, message: str) -> None:
    loss = build_loss(name, embedding_dim=D, num_speakers=S)
    x = torch.randn(2, 3, D) if loss.needs_groups else torch.randn(2, D)
    with pytest.raises(ConfigError, match=re.escape(message)):
        loss(x, labels)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("aam", (2, 3, D), "expected (utterances, embedding) with embedding 5"),
        (
            "aam",
            (2, D + 1),
            "embeddings have the shape (2, 6); expected (utterances, embedding) with embedding",
        ),
        ("aam", (0, D), "the batch is empty"),
        ("angleproto", (2, D), "expected (speakers, utterances, embedding) with embedding 5"),
        ("angleproto", (1, 2, D), "a batch has 1 speakers; expected 2 or more to compare"),
        ("ge2e", (2, 1, D), "a batch has 1 utterances per speaker; expected 2 or more"),
    ],
)
def test_wrong_shapes_are_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    loss = build_loss(name, embedding_dim=D, num_speakers=S)
    with pytest.raises(ConfigError, match=re.escape(message)):
        loss(torch.randn(shape), torch.arange(shape[0]))


def test_whole_numbers_are_no_embeddings() -> None:
    with pytest.raises(ConfigError, match=r"embeddings are torch\.int64; expected a floating type"):
        build_loss("aam", embedding_dim=D, num_speakers=S)(
            torch.ones(2, D, dtype=torch.int64), torch.arange(2)
        )


def test_labels_are_optional_where_there_are_no_classes() -> None:
    loss = built("angleproto", {})
    x, labels = batch(loss)
    assert torch.equal(loss(x).loss, loss(x, labels + 100).loss)
