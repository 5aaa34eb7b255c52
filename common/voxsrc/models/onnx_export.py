"""The ONNX form of an encoder, from log-mel features or from audio, for any batch and any length."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from voxsrc.errors import VoxsrcError
from voxsrc.features import FbankSpec
from voxsrc.features.torch_log_mel import LogMel
from voxsrc.models.encoder import SpeakerEncoder, evaluating

OnnxInput = Literal["log_mel", "audio"]

_OPSET = 18
_MOST_FRAMES = 1 << 20
_MOST_IN_BATCH = 1 << 16
_EXAMPLE_FRAMES = 200
# Embeddings are of the order of 1; more than this is another computation, not another rounding.
_TOLERANCE = 1e-4


class OnnxError(VoxsrcError):
    """The ONNX form of a model computes something else than the model."""


class _FromAudio(nn.Module):
    """Audio (B, W) to embeddings (B, D)."""

    def __init__(self, encoder: SpeakerEncoder, spec: FbankSpec) -> None:
        super().__init__()
        self.log_mel = LogMel(spec)
        self.encoder = encoder

    def forward(self, features: Tensor) -> Tensor:
        embeddings: Tensor = self.encoder(self.log_mel(features))
        return embeddings


def to_onnx(encoder: SpeakerEncoder, spec: FbankSpec, onnx_input: OnnxInput = "log_mel") -> bytes:
    """The ONNX file of an encoder, checked against it.

    Args:
        encoder: The model; left in the mode in which it is.
        spec: The features that it takes.
        onnx_input: `log_mel`: an input `features` (batch, mels, frames) float32 in nat; `audio`: an input
            `audio` (batch, samples) float32 in [-1, 1] at the spec's rate. The output is `embedding`
            (batch, dim) float32, not length-normalised.

    Raises:
        OnnxError: If onnxruntime computes another embedding from it.
    """
    with evaluating(encoder):
        content = _export(encoder, spec, onnx_input)
        _check(content, encoder, spec, onnx_input)
    return content


def _example(spec: FbankSpec, onnx_input: OnnxInput, batch: int, frames: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if onnx_input == "audio":
        shape = (batch, frames * spec.hop_samples + spec.window_samples)
        return (0.1 * torch.randn(shape, generator=generator)).to(device)
    return (3.0 * torch.randn((batch, spec.num_mels, frames), generator=generator) - 5.0).to(device)


def _as_module(encoder: SpeakerEncoder, spec: FbankSpec, onnx_input: OnnxInput) -> nn.Module:
    return _FromAudio(encoder, spec).to(_device(encoder)) if onnx_input == "audio" else encoder


def _device(encoder: SpeakerEncoder) -> torch.device:
    return next(encoder.parameters()).device


def _export(encoder: SpeakerEncoder, spec: FbankSpec, onnx_input: OnnxInput) -> bytes:
    batch = torch.export.Dim("batch", min=1, max=_MOST_IN_BATCH)
    if onnx_input == "audio":
        least = spec.min_samples + encoder.min_frames * spec.hop_samples
        dims = {0: batch, 1: torch.export.Dim("samples", min=least, max=_MOST_FRAMES * spec.hop_samples)}
    else:
        dims = {0: batch, 2: torch.export.Dim("frames", min=max(encoder.min_frames, 2), max=_MOST_FRAMES)}
    with _quiet_exporter():
        program = torch.onnx.export(
            _as_module(encoder, spec, onnx_input),
            (_example(spec, onnx_input, 2, _EXAMPLE_FRAMES, _device(encoder)),),
            dynamo=True,
            dynamic_shapes={"features": dims},
            input_names=["features" if onnx_input == "log_mel" else "audio"],
            output_names=["embedding"],
            opset_version=_OPSET,
            verbose=False,
        )
    if program is None:
        raise OnnxError("torch.onnx.export made nothing")
    model = program.model_proto
    # The exporter's notes: source files and lines of this machine, several times the size of a small network.
    for parts in (model.graph.node, model.graph.value_info, model.graph.input, model.graph.output):
        for part in parts:
            part.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns of its own insides, among them that torchvision is not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _check(content: bytes, encoder: SpeakerEncoder, spec: FbankSpec, onnx_input: OnnxInput) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    module = _as_module(encoder, spec, onnx_input)
    for batch, frames in ((1, _EXAMPLE_FRAMES + 77), (3, _EXAMPLE_FRAMES - 50)):
        inputs = _example(spec, onnx_input, batch, frames, _device(encoder))
        with torch.inference_mode():
            expected = module(inputs).float().cpu().numpy()
        (computed,) = session.run(None, {session.get_inputs()[0].name: inputs.cpu().numpy()})
        difference = float(np.abs(expected - computed).max())
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise OnnxError(
                f"the ONNX model's embeddings of {batch} × {frames} frames differ from the model's by "
                f"{difference:.2g}; expected at most {_TOLERANCE:g}; set onnx to none to go without"
            )
