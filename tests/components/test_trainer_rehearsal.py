"""Compiling and trying the first batches before the training begins."""

import logging
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from commands import Command
from steered_trainings import Arguments
from trainer.batches import Batch
from trainer.distributed import World
from trainer.rehearsal import compiled, rehearse
from trainer.training import Training
from training_runs import Result
from voxsrc.errors import ConfigError


class TestRehearsal:
    def test_it_changes_nothing(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a CPU only what is compiled is tried beforehand; here all is."""
        assert trainer(*arguments(output=tmp_path / "plain")).code == 0
        lengths: list[int] = []

        def tried(self: Training, first_steps: list[int]) -> nn.Module:
            batches = [self.loader(self._stage_of(step)).batch(step) for step in first_steps]
            lengths.extend(batch.features.shape[2] for batch in batches)
            rehearse(self.state.encoder, batches, world=self.world, autocast=self._autocast)
            return self.state.encoder

        monkeypatch.setattr(Training, "_forward", tried)
        assert trainer(*arguments()).code == 0
        assert lengths == [20]
        assert Result.of(tmp_path / "run") == Result.of(tmp_path / "plain")

    def test_what_is_compiled_trains_alike(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By a backend that captures the graphs, and computes them as they are: no compiler is needed."""
        graphs = []

        def backend(module: nn.Module, _: list[Tensor]) -> nn.Module:
            graphs.append(module)
            return module

        tuning = {"num_steps": 4, "crop_frames": 30, "learning_rate": {"kind": "constant", "initial": 1e-3}}
        changes = {"num_steps": 6, "fine_tuning": tuning}
        assert trainer(*arguments(output=tmp_path / "plain", **changes)).code == 0
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
        assert trainer(*arguments("--set", "compile=true", **changes)).code == 0
        assert len(graphs) >= 2, "one of each crop length"
        assert Result.of(tmp_path / "run").history == Result.of(tmp_path / "plain").history

    @pytest.mark.parametrize("required", [True, False])
    def test_what_cannot_be_compiled_is_said_at_once(
        self, features: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, required: bool
    ) -> None:
        def no_compiler(*_: Any) -> None:
            raise RuntimeError("there is no compiler")

        monkeypatch.setattr(
            torch, "compile", partial(torch.compile, backend=lambda module, inputs: no_compiler())
        )
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(40 * 20, 3))
        batch = Batch(cast(Any, None), torch.zeros(2, 40, 20), torch.zeros(2))

        def result() -> nn.Module | None:
            precision = partial(torch.autocast, "cpu", enabled=False)
            return compiled(encoder, [batch], required=required, world=World(), autocast=precision)

        if required:
            with pytest.raises(ConfigError, match=r"there is no compiler.*g\+\+ python3-dev.*compile=false"):
                result()
            return
        with caplog.at_level(logging.WARNING):
            assert result() is None
        assert "Training goes on without it" in caplog.text
        assert all(parameter.grad is None for parameter in encoder.parameters())

    def test_statistics_are_as_before_if_it_fails_half_way(self) -> None:
        encoder = nn.Sequential(nn.BatchNorm1d(40), nn.Flatten(), nn.Linear(40 * 20, 3))
        before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
        batches = [Batch(cast(Any, None), torch.randn(2, 40, frames), torch.zeros(2)) for frames in (20, 30)]
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            rehearse(encoder, batches, world=World(), autocast=partial(torch.autocast, "cpu", enabled=False))
        for name, buffer in encoder.named_buffers():
            torch.testing.assert_close(buffer, before[name], rtol=0, atol=0)
        assert all(parameter.grad is None for parameter in encoder.parameters())
