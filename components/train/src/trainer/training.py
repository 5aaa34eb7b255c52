"""The training loop, and what is set up around it.

Every rank does the same; rank 0 alone saves, validates and reports. Letters: B crops, N speakers, M
utterances of each, D embedding.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from trainer.augment import Augmenter
from trainer.batches import Batch, BatchLoader
from trainer.checkpoint import AsyncSaver, CheckpointStore, SaveSchedule, State, StopRequest
from trainer.data import DeviceFeatures
from trainer.distributed import (
    World,
    broadcast_module,
    broadcast_value,
    check_divisible,
    gather_batch,
    sum_gradients,
    with_global_batch_norm,
)
from trainer.history import Boards, History, draw_curves
from trainer.losses import LossOutput
from trainer.meter import Meter
from trainer.recipe import Recipe, differing_keys
from trainer.sampler import Sampler
from trainer.stages import Stage, stages_of
from trainer.state import TrainingState
from trainer.timing import Timing
from trainer.utterances import TrainingUtterances
from trainer.validation import Validation
from voxsrc import storage
from voxsrc.corpus import split_speakers
from voxsrc.errors import ConfigError, CorpusError, StorageError, VoxsrcError

_log = logging.getLogger("trainer")

_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingError(VoxsrcError):
    """The training cannot go on: the loss is not a number, or the device's memory is full."""


class DivergedError(TrainingError):
    """The loss, a weight or a statistic is not a number."""


class PreemptedError(VoxsrcError):
    """SIGTERM: a last checkpoint was tried; the same command continues."""


@dataclass
class Training:
    """A training, set up and ready to run.

    Args:
        recipe: What to do, with its number of steps known.
        features: The training features.
        features_uri: Where they came from.
        output_uri: Folder of the run.
        world: This process among all.

    Attributes:
        held_out: The speakers left for validation.
    """

    recipe: Recipe
    features: DeviceFeatures
    features_uri: str
    output_uri: str
    world: World

    def __post_init__(self) -> None:
        recipe, index = self.recipe, self.features.index
        training_speakers, held_out = sorted(set(index.speaker_ids)), list[str]()
        if recipe.validation.fraction > 0:
            try:
                training_speakers, held_out = split_speakers(
                    training_speakers, validation_fraction=recipe.validation.fraction
                )
            except CorpusError as error:
                raise ConfigError(
                    f"{self.features_uri}: {error}; give features of more speakers, or set "
                    "validation.fraction to 0"
                ) from error
        self.utterances = TrainingUtterances.of(index, training_speakers)
        self.held_out = held_out
        self.sampler = self._sampler(recipe.sampler.crop_frames)
        self.recipe = recipe = recipe.with_steps(self.sampler.steps_per_epoch)
        check_divisible(recipe.batch_size, recipe.sampler.utterances_per_speaker, self.world)
        self.stages = stages_of(recipe)
        self.num_steps = self.stages[-1].end_step
        self.state = TrainingState.new(recipe, self.utterances.num_speakers, self.features.device)
        self.state.identity = {
            "recipe": recipe.to_mapping(),
            "num_steps": self.num_steps,
            "fbank_spec_hash": self.features.manifest.spec.hash,
            "speakers": self.utterances.num_speakers,
            "utterances": len(self.utterances),
            "features_sha256": self.features.manifest.content_sha256,
        }
        self.history = History(self.output_uri)
        self.timing = Timing(
            self.output_uri,
            self.features.device,
            self.world,
            num_steps=self.num_steps,
            num_frames=sum(self._num_frames(stage) * stage.num_steps for stage in self.stages),
        )
        self._check_later_stages()

    def _check_later_stages(self) -> None:
        """What fails at the first validation, or in the second stage, must fail now."""
        for stage in self.stages[1:]:
            self._sampler(stage.crop_frames)
        tuning, least = self.recipe.fine_tuning, self.state.encoder.min_frames
        crops = {
            "sampler.crop_frames": self.recipe.sampler.crop_frames,
            "fine_tuning.crop_frames": tuning.crop_frames if tuning is not None else least,
            "validation.crop_frames": self.recipe.validation.crop_frames if self.validation else least,
        }
        for key, num_frames in crops.items():
            if num_frames < least:
                raise ConfigError(
                    f"{key} is {num_frames}; {self.recipe.encoder.name} needs at least {least} frames"
                )

    def describe(self) -> str:
        """A few lines: what is trained, on what, for how long."""
        encoder = self.state.encoder
        num_parameters = sum(parameter.numel() for parameter in encoder.parameters())
        held_out = (
            f"{len(self.held_out)} speakers held out for validation" if self.held_out else "no validation"
        )
        return (
            f"{self.recipe.encoder.name}, {num_parameters:,} parameters, {self.recipe.loss.name} loss, "
            f"{self.recipe.precision} on {self.features.device}, {self.num_steps:,} steps\n"
            f"{self.sampler.describe()}; {held_out}"
        )

    def _num_frames(self, stage: Stage) -> int:
        """Of a step's crops."""
        return self.recipe.batch_size * stage.crop_frames

    def _sampler(self, crop_frames: int) -> Sampler:
        config = replace(self.recipe.sampler, crop_frames=crop_frames)
        return Sampler(self.utterances, config, batch_size=self.recipe.batch_size, seed=self.recipe.seed)

    @cached_property
    def validation(self) -> Validation | None:
        """The held-out speakers' trials; None without."""
        if not self.held_out:
            return None
        return Validation(self.features, self.held_out, self.recipe.validation)

    @cached_property
    def augmenter(self) -> Augmenter:
        """The recipe's augmentation."""
        return Augmenter.open(
            self.recipe.augment,
            self.features,
            self.utterances,
            seed=self.recipe.seed,
            data=self.recipe.data,
            processes_on_node=self.world.size,
        )

    def loader(self, stage: Stage) -> BatchLoader:
        """The batches of a stage."""
        return BatchLoader(
            self._sampler(stage.crop_frames),
            self.features,
            self.augmenter if stage.augment and self.recipe.augment.is_on else None,
            self.recipe.data,
            rank=self.world.rank,
            world_size=self.world.size,
        )

    def run(self, first_step: int, saver: AsyncSaver | None, stop: StopRequest, meter: Meter) -> int:
        """Trains from `first_step` on; returns the number of steps done, less than all if stopped early."""
        step = first_step
        if self._out_of_patience():
            return step
        schedule = SaveSchedule(
            fixed_s=self.recipe.checkpoint_interval_s,
            mean_time_between_preemptions_s=self.recipe.mean_time_between_preemptions_s,
        )
        forward = self._forward()
        self.timing.loop_begins(step)
        for stage in self.stages:
            batches = self.loader(stage).batches(max(step, stage.first_step), stage.end_step)
            for batch in meter.waiting(batches):
                self._set_rates(stage, step)
                output = self._update(forward, batch)
                self._count(output, step)
                self.timing.step_done(self._num_frames(stage))
                step += 1
                metric = self._report(stage, step, output, meter)
                self._save(step, metric, saver, schedule, stop)
                if metric is not None and self._out_of_patience():
                    return step
        return step

    def _forward(self) -> nn.Module:
        """The encoder as it is called: over all ranks' batch statistics, compiled."""
        encoder = with_global_batch_norm(self.state.encoder, self.world)
        on_gpu = self.features.device.type == "cuda"
        wanted = self.recipe.compile is True or (self.recipe.compile == "auto" and on_gpu)
        # For each crop length anew: what is compiled must not depend on what came before a restart.
        return torch.compile(encoder, dynamic=False) if wanted else encoder  # type: ignore[return-value]

    def _set_rates(self, stage: Stage, step: int) -> None:
        self.state.set_learning_rate(stage.learning_rate(step))
        margin = stage.margin(step)
        if margin is not None:
            self.state.loss.set_margin(margin)

    def _update(self, forward: nn.Module, batch: Batch) -> LossOutput:
        """One step of the optimizer on the whole batch of all ranks."""
        state, recipe = self.state, self.recipe
        state.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            embeddings_BD = forward(batch.features)
        output = self._loss(gather_batch(embeddings_BD.float(), self.world), batch)
        state.scaler.scale(output.loss).backward()  # type: ignore[no-untyped-call]
        sum_gradients(state.encoder, self.world)
        if recipe.optimizer.clip_norm is not None:
            state.scaler.unscale_(state.optimizer)
            parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, recipe.optimizer.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        return output

    def _loss(self, embeddings_BD: Tensor, batch: Batch) -> LossOutput:
        labels = batch.labels
        if self.world.size > 1:
            whole = self.sampler.batch(batch.plan.step).labels
            labels = torch.from_numpy(whole).to(embeddings_BD.device)
        group = batch.plan.group_size
        if self.state.loss.needs_groups:
            embeddings_NMD = embeddings_BD.view(-1, group, embeddings_BD.shape[1])
            output: LossOutput = self.state.loss(embeddings_NMD, labels[::group])
        else:
            output = self.state.loss(embeddings_BD, labels)
        return output

    def _autocast(self) -> torch.autocast:
        device, precision = self.features.device.type, self.recipe.precision
        return torch.autocast(device, _PRECISIONS.get(precision), enabled=precision in _PRECISIONS)

    def _count(self, output: LossOutput, step: int) -> None:
        """Sums up on the device: to read a number there would wait for it at every step."""
        progress = self.state.progress
        loss = output.loss.detach()
        progress.sums += torch.stack([loss, output.accuracy]).double()
        is_first_bad = ~torch.isfinite(loss) & (progress.first_bad_step < 0)
        progress.first_bad_step.masked_fill_(is_first_bad, step)

    def _report(self, stage: Stage, step: int, output: LossOutput, meter: Meter) -> float | None:
        """A row of the history when it is due; returns the validation EER if there was one."""
        interval = self.recipe.log_interval_steps
        validates = self._validates(step)
        if step % interval and not validates and step != self.num_steps:
            meter.step_done(self.recipe.batch_size)
            return None
        self._check_finite()
        progress = self.state.progress
        count = step % interval or interval
        row: dict[str, Any] = {"step": step, "epoch": round(step / self.sampler.steps_per_epoch, 4)}
        if step % interval == 0 or step == self.num_steps:
            loss, accuracy = (progress.sums / count).tolist()
            row |= {"loss": loss, "accuracy": accuracy, "learning_rate": stage.learning_rate(step - 1)}
            if (margin := stage.margin(step - 1)) is not None:
                row["margin"] = margin
            progress.sums.zero_()
        eer = None
        if validates and self.validation is not None:
            with meter.pausing(), self.timing.validating():
                eer = self.validation.equal_error_rate(self.state.encoder) if self.world.is_first else 0.0
                eer = float(broadcast_value(eer, self.world))
            row["validation_eer"] = eer
            improved = progress.best_eer is None or eer < progress.best_eer
            progress.best_eer = eer if improved else progress.best_eer
            progress.validations_since_best = 0 if improved else progress.validations_since_best + 1
        self.history.rows.append(row)
        meter.step_done(self.recipe.batch_size, row)
        return eer

    def _validates(self, step: int) -> bool:
        interval = self.recipe.validation.interval_steps or self.sampler.steps_per_epoch
        return bool(self.held_out) and (step % interval == 0 or step == self.num_steps)

    def _check_finite(self) -> None:
        bad_step = int(self.state.progress.first_bad_step)
        if bad_step < 0:
            return
        raise self._diverged(bad_step, f"the loss of step {bad_step} is not finite")

    def _diverged(self, step: int, what: str) -> DivergedError:
        rows = self.sampler.batch(step).rows.tolist()
        utterances = ", ".join(self.features.index.utterance_ids[row] for row in rows)
        return DivergedError(
            f"{what} (learning rate {self._stage_of(step).learning_rate(step):g}, precision "
            f"{self.recipe.precision}). Lower learning_rate.initial, set optimizer.clip_norm, or take "
            f"precision fp32, in a new output. The batch's utterances: {utterances}"
        )

    def _stage_of(self, step: int) -> Stage:
        return next(stage for stage in self.stages if step < stage.end_step)

    def _save(
        self,
        step: int,
        metric: float | None,
        saver: AsyncSaver | None,
        schedule: SaveSchedule,
        stop: StopRequest,
    ) -> None:
        """A checkpoint when it is due: by the clock, after a validation, at the end, and on SIGTERM."""
        if saver is None:
            return
        reports = saver.take_reports()
        for report in reports:
            schedule.measured(report)
            self.timing.saved(report)
        if any(report.error is None for report in reports):
            self._write_records()
        if not (schedule.due() or metric is not None or stop.requested or step == self.num_steps):
            return
        # A state that is not a number must never replace one that is.
        self._check_finite()
        if not self.state.is_finite():
            raise self._diverged(step - 1, f"the weights after step {step - 1} are not finite")
        saver.submit(step, self.state.to_state(step, self.history.text), metric=metric)
        schedule.started()
        if stop.requested:
            last = saver.wait()
            problem = f"not saved ({last.error})" if last is not None and last.error is not None else "saved"
            raise PreemptedError(
                f"stopped by SIGTERM after step {step}, which is {problem}; the same command continues"
            )

    def _write_records(self) -> None:
        """Right after a save that went well: storage that is away would hold up the training."""
        try:
            self.history.write()
            self.timing.write()
        except StorageError as error:
            _log.warning("history and timings are not written, training goes on: %s", error)

    def _out_of_patience(self) -> bool:
        patience = self.recipe.validation.patience
        return patience is not None and self.state.progress.validations_since_best >= patience


def resume(training: Training, store: CheckpointStore | None) -> int:
    """Loads the newest checkpoint into all ranks; returns the number of steps done, 0 without any.

    Raises:
        TrainingError: If the checkpoint was made by another recipe or from other features.
        CheckpointError: If there are checkpoints and none can be loaded.
    """
    loaded = store.load(map_location="cpu") if store is not None else None
    step = 0
    if loaded is not None:
        _check_identity(training, loaded.state)
        try:
            training.state.load(loaded.state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(
                f"checkpoint {loaded.entry.name} does not fit this version of the program: {error}; continue "
                "with the version that wrote it, or choose another --output"
            ) from error
        training.history.resume(loaded.state["history"])
        step = int(loaded.state["step"])
        for skipped in loaded.skipped:
            _log.warning(
                "checkpoint %s is damaged (%s): continuing from step %d", skipped.name, skipped.reason, step
            )
    step = int(broadcast_value(step, training.world))
    if training.world.size > 1:
        state = broadcast_value(loaded.state if loaded else None, training.world)
        if state is not None and not training.world.is_first:
            training.state.load(state)
            training.history.resume(state["history"])
        broadcast_module(training.state.encoder, training.world)
        broadcast_module(training.state.loss, training.world)
    return step


def _check_identity(training: Training, state: State) -> None:
    stored, ours = state["identity"], training.state.identity
    different = differing_keys(stored["recipe"], ours["recipe"])
    different += [f"{n}: {stored[n]} → {ours[n]}" for n in stored if n != "recipe" and stored[n] != ours[n]]
    if different:
        raise TrainingError(
            f"{training.output_uri} holds a training with another recipe or other features: "
            f"{'; '.join(different)}. Continue with what it was begun with, or choose another --output"
        )


def _last_good(store: CheckpointStore | None, saver: AsyncSaver | None) -> str:
    """The newest checkpoint, in words; the empty text to others than the first process."""
    if store is None or saver is None:
        return ""
    saver.wait()
    if not store.entries:
        return "No checkpoint was saved before"
    return f"The last good checkpoint is {storage.join(store.folder_uri, store.entries[0].name)}"


@contextmanager
def out_of_memory_advice(recipe: Recipe, world: World) -> Iterator[None]:
    """Says which batch size to try when the device's memory is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        unit = recipe.sampler.utterances_per_speaker * world.size
        smaller = max(unit, recipe.batch_size // 2 // unit * unit)
        tuning = recipe.fine_tuning
        frames = max(recipe.sampler.crop_frames, tuning.crop_frames if tuning is not None else 0)
        half = "" if recipe.precision != "fp32" else "--set precision=bf16, "
        raise TrainingError(
            f"out of memory at batch_size {recipe.batch_size}, crops up to {frames} frames, precision "
            f"{recipe.precision}: try --set batch_size={smaller} or {half}in a new output, or --set "
            f"data.placement=ram if the features are in GPU memory ({error})"
        ) from error


def train(training: Training, run_id: str, *, show_progress: bool) -> bool:
    """Runs a training from its last checkpoint to its end.

    Args:
        training: Set up.
        run_id: Names this run to others who try to write into the same output.
        show_progress: Draw a progress bar.

    Returns:
        Whether it stopped early, by the recipe's patience.

    Raises:
        WriterActiveError: If another run writes into the output.
        TrainingError: If the loss is not a number, memory is full, or the output is another training's.
        PreemptedError: On SIGTERM, after a checkpoint.
    """
    recipe, world = training.recipe, training.world
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        store = saver = boards = None
        with training.timing.restoring():
            if world.is_first:
                store = CheckpointStore(training.output_uri, keep_last=recipe.keep_checkpoints)
                stack.enter_context(store.open_for_writing(run_id))
            first_step = resume(training, store)
        if store is not None:
            saver = stack.enter_context(AsyncSaver(store))
            boards = Boards(
                training.output_uri,
                first_step=first_step,
                wandb_project=recipe.wandb_project,
                recipe=recipe.to_mapping(),
            )
            stack.callback(boards.close)
        if first_step:
            _log.info("continuing after step %d of %d", first_step, training.num_steps)
        meter = Meter(first_step, training.num_steps, boards, show=show_progress and world.is_first)
        stack.enter_context(meter)
        stack.enter_context(out_of_memory_advice(recipe, world))
        try:
            done = training.run(first_step, saver, stop, meter)
        except DivergedError as error:
            raise DivergedError(f"{error}. {_last_good(store, saver)}".strip()) from error
        if saver is not None:
            report = saver.wait()
            if report is not None and report.error is not None:
                raise report.error
            for ended in saver.take_reports():
                training.timing.saved(ended)
            training.history.write()
            training.timing.write(finished=True)
            draw_curves(training.output_uri, training.history.rows)
        return done < training.num_steps
