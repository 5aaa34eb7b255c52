"""What the losses declare, and what they refuse."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from loss_cases import D, S, batch, built
from trainer.losses import LOSSES, build_loss, check_loss
from voxsrc.errors import ConfigError


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
