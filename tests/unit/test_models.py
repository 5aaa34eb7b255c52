"""Models against published counts and direct double-precision computations; what training and export need."""

import argparse
import functools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxsrc.errors import AudioError, ConfigError

torch = pytest.importorskip("torch", reason="torch is not installed (extra `train`)")

from torch.nn import functional as F  # noqa: E402 - needs torch

from voxsrc.commands import models as models_command  # noqa: E402
from voxsrc.models import MODELS, build_model, complexity  # noqa: E402
from voxsrc.models.blocks import BasicBlock, SqueezeExcitation  # noqa: E402
from voxsrc.models.complexity import count_parameters  # noqa: E402
from voxsrc.models.ecapa_tdnn import Res2Conv  # noqa: E402
from voxsrc.models.encoder import EncoderConfig, SpeakerEncoder, normalise  # noqa: E402
from voxsrc.models.pooling import ASP, SAP, TSTP  # noqa: E402

# Counted with the code that each model follows; the papers and READMEs print them rounded
# (1.4 M, 8.0 M, 6.63 M, 6.19 M, 14.65 M).
PUBLISHED_PARAMETERS = {
    "ResNetSE34L": 1_437_078,
    "ResNetSE34V2": 8_028_492,
    "VGGVox": 4_032_448,
    "ResNet34": 6_634_336,
    "ECAPA_TDNN_512": 6_190_720,
    "ECAPA_TDNN_1024": 14_657_088,
}
_TWO_STAGES = {"num_blocks": [1, 2], "strides": [1, 2]}
# One small model of each kind, so that slow checks stay quick.
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "mean and SAP": ("ResNetSE34L", {"channels": [8, 12], "se_reduction": 2, **_TWO_STAGES}),
    "flatten and ASP": ("ResNetSE34V2", {"channels": [8, 12], "se_reduction": 2, **_TWO_STAGES}),
    "flatten and TSTP": ("ResNet34", {"channels": [8, 12], **_TWO_STAGES}),
    "VGGVox": ("VGGVox", {}),
    "ECAPA": ("ECAPA_TDNN_512", {"channels": 32, "aggregated_channels": 48}),
}


cost_of = functools.cache(complexity.measure)


def features(batch: int, mels: int, frames: int, seed: int = 0) -> torch.Tensor:
    """Numbers like log-mel energies, (B, F, T)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, mels, frames, generator=generator) * 3 - 6


def small_encoder(kind: str, *, num_mels: int = 40, normalisation: str = "mean") -> SpeakerEncoder:
    """A small encoder in evaluation mode, whose batch-norm statistics are not the initial ones."""
    name, options = SMALL[kind]
    torch.manual_seed(1)
    encoder = SpeakerEncoder(
        EncoderConfig(
            name=name,
            num_mels=num_mels,
            embedding_dim=16,
            normalisation=normalisation,  # type: ignore[arg-type]
            options=options,
        )
    )
    encoder(features(2, num_mels, 100))
    return encoder.eval()


def with_statistics(module: torch.nn.Module) -> torch.nn.Module:
    """The module in float64 and evaluation mode with random weights and batch-norm statistics."""
    generator = torch.Generator().manual_seed(2)
    for name, tensor in module.double().state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0.1, 0.5, generator=generator)
    return module.eval()


def numpy_of(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """The module's parameters and buffers."""
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def softmax(scores: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def batch_norm(x: np.ndarray, w: dict[str, np.ndarray], prefix: str) -> np.ndarray:
    """Evaluation-mode batch norm of (C, T)."""
    scale = w[f"{prefix}.weight"] / np.sqrt(w[f"{prefix}.running_var"] + 1e-5)
    return (x - w[f"{prefix}.running_mean"][:, None]) * scale[:, None] + w[f"{prefix}.bias"][:, None]


class TestSizeAndCost:
    @pytest.mark.parametrize(("name", "count"), PUBLISHED_PARAMETERS.items())
    def test_parameters_are_the_published_ones(self, name: str, count: int) -> None:
        assert cost_of(name).num_parameters == count

    def test_what_the_count_of_fast_resnet_34_includes(self) -> None:
        model = build_model("ResNetSE34L", num_mels=40)
        parts = {name: count_parameters(part) for name, part in model.named_children()}
        assert parts.pop("linear") == 128 * 512 + 512
        assert parts.pop("pooling") == 128 * 128 + 128 + 128
        assert sum(parts.values()) == 1_437_078 - 66_048 - 16_640

    def test_mini_is_small(self) -> None:
        mini = cost_of("ResNet_mini")
        assert 50_000 < mini.num_parameters < 100_000
        assert mini.training_gflop < 0.2

    # voxceleb_trainer's 2 s crop has 202 frames, as its frames are centred. ECAPA's published cost has the
    # context multiplied in every frame; here once: 2 of 3 thirds of that layer less, forward and backward.
    @pytest.mark.parametrize(
        ("name", "num_frames", "published_gflop", "saved_gflop"),
        [
            ("ResNetSE34L", 202, 2.7, 0.0),
            ("ResNetSE34V2", 202, 22.2, 0.0),
            ("ResNet34", 200, 27.2, 0.0),
            ("ECAPA_TDNN_512", 200, 6.1, 3 * 2e-9 * 2 * 1536 * 128 * 199),
            ("ECAPA_TDNN_1024", 200, 15.7, 3 * 2e-9 * 2 * 1536 * 128 * 199),
        ],
    )
    def test_flops_are_the_published_ones(
        self, name: str, num_frames: int, published_gflop: float, saved_gflop: float
    ) -> None:
        cost = cost_of(name, num_frames=num_frames)
        assert cost.training_gflop + saved_gflop == pytest.approx(published_gflop, rel=0.015)
        assert cost.forward_gflop == pytest.approx(cost.training_gflop / 3, rel=0.02)

    def test_command_prints_a_table_and_json(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parser = argparse.ArgumentParser()
        models_command.add_commands(parser.add_subparsers())
        monkeypatch.setattr(complexity, "measure", cost_of)
        printed = []
        for line in (["models"], ["models", "--json"]):
            parsed = parser.parse_args(line)
            parsed.function(parsed)
            printed.append(capsys.readouterr().out)
        table, listed = printed[0], json.loads(printed[1])
        assert [model["name"] for model in listed] == list(MODELS)
        assert listed[0]["num_parameters"] == 1_437_078
        row = next(line for line in table.splitlines() if line.startswith("ResNetSE34L "))
        assert row.split()[1:4] == ["40", "512", "1,437,078"]


class TestPooling:
    def test_sap_is_the_formula(self) -> None:
        pooling = with_statistics(SAP(6))
        x, w = features(3, 6, 17).double(), numpy_of(pooling)
        for pooled, utterance in zip(pooling(x).detach().numpy(), x.numpy(), strict=True):
            hidden = np.tanh(w["score_in.weight"][:, :, 0] @ utterance + w["score_in.bias"][:, None])
            weights = softmax(w["score_out.weight"][0, :, 0] @ hidden)
            np.testing.assert_allclose(pooled, utterance @ weights, rtol=1e-12)

    @pytest.mark.parametrize("global_context", [False, True])
    @pytest.mark.parametrize("hidden", ["relu_norm", "tanh"])
    def test_asp_is_the_formula(self, hidden: Any, global_context: bool) -> None:
        pooling = with_statistics(ASP(6, hidden=hidden, global_context=global_context, bottleneck=5))
        x, w = features(3, 6, 17).double(), numpy_of(pooling)
        for pooled, utterance in zip(pooling(x).detach().numpy(), x.numpy(), strict=True):
            read = utterance
            if global_context:
                statistics = [utterance.mean(axis=1), np.sqrt(utterance.var(axis=1, ddof=1) + 1e-7)]
                read = np.concatenate([utterance, *(np.tile(s[:, None], 17) for s in statistics)])
            inner = w["score_in.weight"][:, :, 0] @ read + w["score_in.bias"][:, None]
            inner = np.tanh(inner) if hidden == "tanh" else batch_norm(np.maximum(inner, 0), w, "hidden.1")
            weights = softmax(w["score_out.weight"][:, :, 0] @ inner + w["score_out.bias"][:, None])
            mean = (weights * utterance).sum(axis=1)
            variance = (weights * (utterance - mean[:, None]) ** 2).sum(axis=1)
            expected = np.concatenate([mean, np.sqrt(np.maximum(variance, 1e-5))])
            np.testing.assert_allclose(pooled, expected, rtol=1e-10)

    def test_tstp_is_mean_and_deviation(self) -> None:
        x = features(3, 6, 17).double()
        expected = np.concatenate([x.numpy().mean(axis=2), x.numpy().std(axis=2, ddof=1)], axis=1)
        np.testing.assert_allclose(TSTP(6)(x).numpy(), expected, rtol=1e-6)

    @given(order=st.permutations(range(9)))
    @settings(max_examples=20)
    def test_the_order_of_frames_does_not_matter(self, order: list[int]) -> None:
        x = features(2, 4, 9).double()
        for pooling in (SAP(4), ASP(4), ASP(4, hidden="tanh", global_context=True), TSTP(4)):
            with_statistics(pooling)
            torch.testing.assert_close(pooling(x[:, :, order]), pooling(x))

    @pytest.mark.parametrize("pooling", [ASP(4), TSTP(4)], ids=["ASP", "TSTP"])
    def test_deviation_keeps_its_digits_far_from_zero(self, pooling: torch.nn.Module) -> None:
        pooling.eval()
        near = features(2, 4, 50)
        far = near + 10_000
        torch.testing.assert_close(far - 10_000, near, atol=1e-3, rtol=0)
        if isinstance(pooling, ASP):  # equal weights, as those depend on the mean
            torch.nn.init.zeros_(pooling.score_out.weight)
        torch.testing.assert_close(pooling(far)[:, 4:], pooling(near)[:, 4:], atol=1e-3, rtol=0)

    @pytest.mark.parametrize(
        "pooling",
        [SAP(4), ASP(4), ASP(4, hidden="tanh", global_context=True), TSTP(4)],
        ids=["SAP", "ASP", "ASP with context", "TSTP"],
    )
    def test_constant_input_has_finite_gradients(self, pooling: torch.nn.Module) -> None:
        x = torch.full((2, 4, 6), 3.0, requires_grad=True)
        pooling(x).sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in pooling.parameters())


class TestBlocks:
    @pytest.mark.parametrize("shape", [(2, 8, 5, 7), (2, 8, 7)])
    def test_squeeze_excitation_is_the_formula(self, shape: tuple[int, ...]) -> None:
        block = with_statistics(SqueezeExcitation(8, 3))
        w = numpy_of(block)
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        for out, utterance in zip(block(x).detach().numpy(), x.numpy(), strict=True):
            mean = utterance.reshape(8, -1).mean(axis=1)
            hidden = np.maximum(w["squeeze.weight"] @ mean + w["squeeze.bias"], 0)
            gate = 1 / (1 + np.exp(-(w["excite.weight"] @ hidden + w["excite.bias"])))
            np.testing.assert_allclose(out, (utterance.T * gate).T, rtol=1e-12)

    def test_res2_convolution_is_the_formula(self) -> None:
        block = with_statistics(Res2Conv(8, dilation=3, scale=4))
        w, x = numpy_of(block), features(1, 8, 15).double()
        groups, before, expected = np.split(x[0].numpy(), 4), np.zeros((2, 15)), []
        for i, group in enumerate(groups[:-1]):
            padded = np.pad(group + before, ((0, 0), (3, 3)))
            weight, bias = w[f"convs.{i}.conv.weight"], w[f"convs.{i}.conv.bias"]
            summed = sum(weight[:, :, tap] @ padded[:, 3 * tap : 3 * tap + 15] for tap in range(3))
            before = batch_norm(np.maximum(summed + bias[:, None], 0), w, f"convs.{i}.norm")
            expected.append(before)
        np.testing.assert_allclose(
            block(x)[0].detach().numpy(), np.concatenate([*expected, groups[-1]]), rtol=1e-10
        )

    @pytest.mark.parametrize("order", ["norm_relu", "relu_norm"])
    def test_basic_block_follows_its_order(self, order: Any) -> None:
        block = with_statistics(BasicBlock(3, 4, 2, order=order, se_reduction=2))
        x = torch.randn(2, 3, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        inner = F.conv2d(x, block.conv1.weight, stride=2, padding=1)
        inner = block.norm1(inner.relu()) if order == "relu_norm" else block.norm1(inner).relu()
        inner = block.gate(block.norm2(F.conv2d(inner, block.conv2.weight, padding=1)))
        torch.testing.assert_close(block(x), (inner + block.shortcut(x)).relu())


class TestModels:
    @pytest.mark.parametrize("name", MODELS)
    def test_shapes(self, name: str) -> None:
        num_mels = MODELS[name].num_mels
        with torch.device("meta"):
            model = build_model(name, num_mels=num_mels)
            for num_frames in (model.min_frames, 200, 1001):
                embeddings = model(torch.empty(3, num_mels, num_frames))
                assert embeddings.shape == (3, MODELS[name].embedding_dim)

    @pytest.mark.parametrize("kind", SMALL)
    def test_a_batch_gives_what_its_utterances_give_alone(self, kind: str) -> None:
        encoder = small_encoder(kind)
        x = features(3, 40, 131)
        together, alone = encoder(x), torch.cat([encoder(utterance[None]) for utterance in x])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("kind", SMALL)
    def test_gradient_reaches_every_parameter(self, kind: str) -> None:
        encoder = small_encoder(kind).train()
        embeddings = encoder(features(3, 40, 100))
        (embeddings * torch.randn_like(embeddings)).sum().backward()
        unreached = [
            name
            for name, parameter in encoder.named_parameters()
            if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
        ]
        assert unreached == []

    @pytest.mark.parametrize("kind", SMALL)
    @pytest.mark.parametrize("num_mels", [23, 64, 80])
    def test_frequency_axis_adapts(self, kind: str, num_mels: int) -> None:
        encoder = small_encoder(kind, num_mels=num_mels)
        assert encoder(features(2, num_mels, 100)).shape == (2, 16)

    @pytest.mark.filterwarnings("ignore:.*degrees of freedom")
    @pytest.mark.parametrize("kind", SMALL)
    def test_min_frames_is_the_least_that_can_be_pooled(self, kind: str) -> None:
        encoder = small_encoder(kind)
        pooled_lengths = []
        encoder.model.pooling.register_forward_pre_hook(
            lambda module, inputs: pooled_lengths.append(inputs[0].shape[2])
        )
        assert encoder(features(1, 40, encoder.min_frames)).isfinite().all()
        encoder.model.embed(features(1, 40, encoder.min_frames - 1))
        assert pooled_lengths == [2, 1]
        with pytest.raises(AudioError, match=f"needs at least {encoder.min_frames}"):
            encoder(features(1, 40, encoder.min_frames - 1))
        with pytest.raises(AudioError, match="too_short"):
            encoder.model(features(1, 40, 0))

    @pytest.mark.parametrize("kind", ["mean and SAP", "flatten and ASP", "flatten and TSTP", "VGGVox"])
    def test_channels_last_gives_the_same(self, kind: str) -> None:
        encoder = small_encoder(kind)
        x = features(2, 40, 120)
        before = encoder(x)
        encoder.to(memory_format=torch.channels_last)
        seen = []
        convolutions = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)]
        for convolution in convolutions:
            convolution.register_forward_hook(
                lambda module, inputs, out: seen.append(out.is_contiguous(memory_format=torch.channels_last))
            )
        torch.testing.assert_close(encoder(x), before, atol=1e-5, rtol=1e-5)
        assert seen == [True] * len(convolutions)

    @pytest.mark.parametrize("kind", SMALL)
    def test_same_seed_same_weights_and_output(self, kind: str) -> None:
        first, second = small_encoder(kind), small_encoder(kind)
        x = features(2, 40, 120)
        assert torch.equal(first(x), second(x))
        weights = second.state_dict()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in first.state_dict().items())

    @pytest.mark.parametrize("kind", SMALL)
    def test_bfloat16_autocast_pools_in_float32(self, kind: str) -> None:
        encoder = small_encoder(kind)
        x = features(2, 40, 120)
        expected = encoder(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            embeddings = encoder(x)
        assert embeddings.dtype == torch.float32
        assert F.cosine_similarity(embeddings, expected).min() > 0.999

    @pytest.mark.parametrize("kind", SMALL)
    def test_export_leaves_batch_and_length_free(self, kind: str) -> None:
        encoder = small_encoder(kind, normalisation="mean_variance")
        sizes = (
            {0: torch.export.Dim("batch", min=1), 2: torch.export.Dim("frames", min=encoder.min_frames)},
        )
        exported = torch.export.export(encoder, (features(2, 40, 203),), dynamic_shapes=sizes).module()
        for batch, num_frames in ((1, encoder.min_frames), (3, 202), (1, 517)):
            x = features(batch, 40, num_frames)
            torch.testing.assert_close(exported(x), encoder(x))

    def test_compiles_to_one_graph_for_any_length(self) -> None:
        encoder = small_encoder("mean and SAP")
        compiled = torch.compile(encoder, backend="eager", fullgraph=True, dynamic=True)
        for num_frames in (200, 311):
            x = features(2, 40, num_frames)
            torch.testing.assert_close(compiled(x), encoder(x))

    @pytest.mark.parametrize(
        ("name", "arguments", "message"),
        [
            ("ResNetSE34", {}, "there is no model 'ResNetSE34': did you mean ResNetSE34"),
            ("ResNetSE34L", {"num_mels": 7}, "num_mels is 7.*at least 8"),
            ("VGGVox", {"num_mels": 14}, "num_mels is 14.*at least 15"),
            ("ResNetSE34L", {"embedding_dim": 0}, "embedding_dim is 0"),
            ("ResNetSE34L", {"chanels": [1]}, "options.chanels: unknown key, did you mean channels"),
            ("ResNetSE34L", {"pooling": "TAP"}, "options.pooling.*SAP, ASP, TSTP"),
            ("ResNetSE34L", {"channels": [16, 32]}, "channels has 2 entries, num_blocks 4"),
            ("ResNetSE34L", {"num_blocks": [3, 4, 0, 3]}, "num_blocks is .*above 0"),
            ("ResNetSE34L", {"stem_kernel": 4}, "stem_kernel is 4; expected an odd"),
            ("ResNetSE34L", {"se_reduction": 17}, "se_reduction is 17.*16"),
            ("ECAPA_TDNN_512", {"channels": 100}, "scale is 8.*divisor of channels, 100"),
            ("ECAPA_TDNN_512", {"dilations": []}, "dilations is"),
            ("ECAPA_TDNN_512", {"se_bottleneck": 0}, "se_bottleneck is 0"),
        ],
    )
    def test_what_cannot_be_built_is_refused(
        self, name: str, arguments: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            build_model(name, **{"num_mels": 40, **arguments})

    @pytest.mark.parametrize("shape", [(2, 64, 100), (40, 100), (1, 1, 40, 100)])
    def test_features_that_do_not_fit_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ConfigError, match=r"features have the shape .* expects \(batch, 40, frames\)"):
            small_encoder("mean and SAP")(torch.zeros(shape))


class TestEncoder:
    def test_config_survives_json(self) -> None:
        config = EncoderConfig(
            name="ResNetSE34L", num_mels=64, normalisation="none", options={"pooling": "TSTP"}
        )
        assert EncoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    def test_config_takes_the_published_embedding(self) -> None:
        config = EncoderConfig(name="ResNet34", num_mels=80)
        assert config.embedding_dim == 256
        assert config.to_dict()["embedding_dim"] == 256
        assert EncoderConfig(name="ResNet34", num_mels=80, embedding_dim=128).embedding_dim == 128

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"normalization": "mean"}, "encoder.normalization: unknown key, did you mean normalisation"),
            ({"normalisation": "cmvn"}, "encoder.normalisation.*mean, mean_variance, none"),
            ({"name": "Resnet34"}, "encoder: there is no model 'Resnet34': did you mean ResNet34"),
            ({"options": {"poling": "SAP"}}, "encoder: options.poling: unknown key, did you mean pooling"),
            ({"num_mels": 0}, "encoder: num_mels is 0"),
            ({"embedding_dim": -1}, "encoder: embedding_dim is -1"),
        ],
    )
    def test_config_that_cannot_be_used_is_refused(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            EncoderConfig.from_dict({"name": "ResNet_mini", "num_mels": 40, **fields}, "encoder")

    def test_mean_and_variance_are_instance_norm(self) -> None:
        x = features(3, 40, 50)
        torch.testing.assert_close(normalise(x, "mean_variance"), F.instance_norm(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(normalise(x, "mean"), x - x.mean(dim=2, keepdim=True))
        assert torch.equal(normalise(x, "none"), x)

    def test_digital_silence_normalises_to_finite_numbers(self) -> None:
        silence = torch.full((1, 40, 50), -13.8)
        assert normalise(silence, "mean_variance").abs().max() < 1e-2

    @pytest.mark.parametrize(("normalisation", "ignores"), [("mean", True), ("none", False)])
    def test_a_constant_gain_in_each_band_is_removed(self, normalisation: str, ignores: bool) -> None:
        encoder = small_encoder("mean and SAP", normalisation=normalisation)
        x = features(2, 40, 100)
        gain = torch.linspace(-2, 2, 40)[None, :, None]
        difference = (encoder(x + gain) - encoder(x)).abs().max() / encoder(x).abs().max()
        assert (difference < 1e-4) == ignores
