"""All that a training changes: encoder, loss, optimizer, and the counts of its reports."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainer.checkpoint import State
from trainer.losses import SpeakerLoss, build_loss
from trainer.recipe import OptimizerConfig, Recipe
from voxsrc.models.encoder import SpeakerEncoder


@dataclass
class Progress:
    """What has been summed up and found so far.

    Attributes:
        sums: (3,) float64 on the device: loss, accuracy and count of steps since the last row of the history.
        first_bad_step: (1,) int64 on the device: the first step with a loss that is not finite; -1 if none.
        best_eer: The least validation EER; None before the first.
        validations_since_best: Validations since then, or since the stage began.
        stopped_early: Whether patience has ended a stage.
    """

    sums: Tensor
    first_bad_step: Tensor
    best_eer: float | None = None
    validations_since_best: int = 0
    stopped_early: bool = False


@dataclass
class TrainingState:
    """The modules and the optimizer of a training; `to_state` and `load` are exact to the bit."""

    encoder: SpeakerEncoder
    loss: SpeakerLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress
    identity: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def new(cls, recipe: Recipe, num_speakers: int, device: torch.device) -> "TrainingState":
        """Weights drawn from the recipe's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            encoder = SpeakerEncoder(recipe.encoder)
            loss = build_loss(
                recipe.loss.name,
                embedding_dim=encoder.embedding_dim,
                num_speakers=num_speakers,
                **recipe.loss.options,
            )
        encoder, loss = encoder.to(device), loss.to(device)
        if recipe.channels_last:
            encoder = encoder.to(memory_format=torch.channels_last)
        parameters = [*encoder.parameters(), *loss.parameters()]
        return cls(
            encoder=encoder,
            loss=loss,
            optimizer=_optimizer(parameters, recipe.optimizer, scales_loss=recipe.precision == "fp16"),
            scaler=torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16"),
            progress=Progress(
                sums=torch.zeros(3, dtype=torch.float64, device=device),
                first_bad_step=torch.full((1,), -1, dtype=torch.int64, device=device),
            ),
        )

    def to_state(self, step: int, history: str) -> State:
        """All of it after `step` steps, of which the history is `history`."""
        progress = self.progress
        return {
            "step": step,
            "identity": self.identity,
            "encoder": self.encoder.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": history,
            "sums": progress.sums,
            "best_eer": progress.best_eer,
            "validations_since_best": progress.validations_since_best,
            "stopped_early": progress.stopped_early,
        }

    def is_finite(self) -> bool:
        """Whether no weight and no statistic is infinite or NaN; waits for the device."""
        tensors = [*self.encoder.state_dict().values(), *self.loss.state_dict().values()]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

    def load(self, state: State) -> None:
        """Takes over a checkpoint's state."""
        self.load_weights(state)
        progress = self.progress
        progress.sums.copy_(state["sums"])
        progress.best_eer = state["best_eer"]
        progress.validations_since_best = state["validations_since_best"]
        # Trainings of earlier versions do not tell.
        progress.stopped_early = state.get("stopped_early", False)

    def load_weights(self, state: State) -> None:
        """Takes over the modules and the optimizer of a checkpoint, and nothing of what was counted."""
        self.encoder.load_state_dict(state["encoder"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def set_learning_rate(self, learning_rate: float) -> None:
        """Sets it for the next update."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate


def _optimizer(
    parameters: list[nn.Parameter], config: OptimizerConfig, *, scales_loss: bool
) -> torch.optim.Optimizer:
    """An optimizer whose learning rate is set before each step."""
    # Scalars are a loss's scale and bias, which nothing should draw to zero.
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim()], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if not p.dim()], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        # Fused, a first step that the scaler skips, as its gradients are infinite, leaves a momentum that was
        # never written (torch 2.11 to 2.14: empty_like, and a kernel that returns early).
        fused = not scales_loss
        return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, nesterov=nesterov, fused=fused)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=0.0, fused=True)
