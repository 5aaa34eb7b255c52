"""The training loop, and what is set up around it.

Every rank does the same; rank 0 alone saves, validates and reports. Letters: B crops, N speakers, M
utterances of each, D embedding.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from trainer.augment import Augmenter
from trainer.batches import Batch, BatchLoader
from trainer.checkpoint import AsyncSaver, CheckpointStore, SaveSchedule, StopRequest
from trainer.data import DeviceFeatures
from trainer.distributed import (
    World,
    broadcast_value,
    gather_batch,
    sum_gradients,
    with_global_batch_norm,
)
from trainer.doubts import doubtful_settings
from trainer.errors import DivergedError, PreemptedError
from trainer.history import Boards, History
from trainer.initial_model import (
    TRAINING_SPEAKERS,
    doubt_about_held_out,
    fitting_model,
    record_with,
    speaker_record,
)
from trainer.losses import LossOutput
from trainer.meter import Meter
from trainer.noise import naming_key
from trainer.recipe import Recipe
from trainer.rehearsal import compiled, rehearse
from trainer.resuming import recorded_identity, return_to_best
from trainer.sampler import Sampler, check_batch_size
from trainer.stages import Stage, stages_of
from trainer.state import TrainingState
from trainer.timing import Timing
from trainer.utterances import TrainingUtterances
from trainer.validation import Validation
from voxsrc.corpus import speed_copies, split_speakers
from voxsrc.errors import ConfigError, CorpusError, NotFoundError, StorageError
from voxsrc.feature_set import read_manifest

_log = logging.getLogger("trainer")

_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def _content_of(features_uri: str) -> str:
    return read_manifest(features_uri).content_sha256


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
        copies = speed_copies(training_speakers, self.features.manifest.made_from)
        if recipe.validation.fraction > 0:
            try:
                training_speakers, held_out = split_speakers(
                    training_speakers,
                    copies=copies,
                    validation_fraction=recipe.validation.fraction,
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
        check_batch_size(recipe.batch_size, recipe.sampler.utterances_per_speaker, self.world.size)
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
        # On whom the model is trained; None if its initial model does not say, or cannot be asked any more.
        self._record: str | None = speaker_record(copies.get(name, name) for name in training_speakers)
        for kind, noise in recipe.augment.recordings().items():
            with naming_key(f"augment.{kind}.features"):
                name = f"{kind}_sha256"
                self.state.identity[name] = self._known(name, partial(_content_of, noise))
        if recipe.initial_model is not None:
            originals = [name for name in held_out if name not in copies]
            own, self._record = self._record, None
            take = partial(self._take_weights_of, recipe.initial_model, originals, own)
            self.state.identity["initial_model"] = self._known("initial_model", take)
        if self._record is not None:
            # Last, where a checkpoint's is added to one that has none: equal trainings give equal bytes.
            self.state.identity[TRAINING_SPEAKERS] = self._record
        self.history = History(self.output_uri)
        self.boards: Boards | None = None
        self.timing = Timing(
            self.output_uri,
            self.features.device,
            self.world,
            num_steps=self.num_steps,
            num_frames=sum(self._num_frames(stage) * stage.num_steps for stage in self.stages),
        )
        self._check_later_stages()

    def _known(self, name: str, look: Callable[[], str]) -> str:
        """What is read beside the features, by content; as this training has it on record, if it is gone."""
        try:
            return look()
        except NotFoundError as error:
            recorded = recorded_identity(self.output_uri).get(name)
            if recorded is None:
                raise
            _log.warning("%s; taken to be what this training was begun with", error)
            return str(recorded)

    def _take_weights_of(self, model_uri: str, held_out: Sequence[str], own: str) -> str:
        """Begins with a trained model's encoder, which then knows that model's speakers; returns its hash."""
        spec, identity = self.features.manifest.spec, self.state.identity
        model = fitting_model(model_uri, self.recipe.encoder, spec, self.features_uri)
        doubt = doubt_about_held_out(model_uri, model.description, held_out, identity)
        if doubt is not None and self.world.is_first:
            _log.warning("%s", doubt)
        self._record = record_with(own, model_uri, model.description, identity)
        self.state.encoder.load_state_dict(model.encoder.state_dict())
        return model.model_hash

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
        stages = "".join(
            f"\nstage {number}: {stage.describe()}" for number, stage in enumerate(self.stages, start=1)
        )
        return (
            f"{self.recipe.encoder.name}, {num_parameters:,} parameters, {self.recipe.loss.name} loss, "
            f"{self.recipe.precision} on {self.features.device}, {self.num_steps:,} steps\n"
            f"{self.sampler.describe(self.world.size)}; {held_out}{stages}"
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

    def open_inputs(self) -> None:
        """Opens what else is read, the feature sets of noise and music; warns of what is rarely meant.

        Raises:
            FeatureSetError: One was made with another spec than the training features, or is damaged.
            ConfigError: One is empty, or there is no other speaker for babble.
        """
        if self.world.is_first:
            for doubt in doubtful_settings(self.recipe, self.stages):
                _log.warning("%s", doubt)
        if self.recipe.augment.is_on:
            self.augmenter  # noqa: B018 - made when first asked for

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

    def run(
        self,
        first_step: int,
        store: CheckpointStore | None,
        saver: AsyncSaver | None,
        stop: StopRequest,
        meter: Meter,
    ) -> int:
        """Trains from `first_step` on.

        A stage ends with its last step, or when patience has run out: then the best weights are taken, and
        the next stage begins with them.

        Returns:
            The number of steps after which the weights were as they are now.
        """
        schedule = SaveSchedule(
            fixed_s=self.recipe.checkpoint_interval_s,
            mean_time_between_preemptions_s=self.recipe.mean_time_between_preemptions_s,
        )
        step = weights_step = first_step
        # What was counted at the end of a stage is its own: the next one has not begun to count.
        left = [
            s for s in self.stages if step < s.end_step or (step == s.end_step and self._out_of_patience())
        ]
        forward = self._forward([max(step, stage.first_step) for stage in left if step < stage.end_step])
        self.timing.loop_begins(step)
        if saver is not None:
            self._write_records(self.timing.write)
        progress = self.state.progress
        for stage in left:
            if step == stage.first_step:
                progress.validations_since_best = 0
            batches = self.loader(stage).batches(step, step if self._out_of_patience() else stage.end_step)
            for batch in meter.waiting(batches):
                self._set_rates(stage, step)
                output = self._update(forward, batch)
                self._count(output, step)
                self.timing.step_done(self._num_frames(stage))
                step += 1
                metric = self._report(stage, step, output, meter)
                self._save(step, metric, saver, schedule, stop)
                if metric is not None and self._out_of_patience():
                    break
            weights_step = step
            if self._out_of_patience():
                weights_step = self._stop_early(step, store, saver)
                skipped = stage.end_step - step
                meter.skip(skipped)
                self.timing.skip(skipped, skipped * self._num_frames(stage))
                step = stage.end_step
        return weights_step

    def _stop_early(self, step: int, store: CheckpointStore | None, saver: AsyncSaver | None) -> int:
        """Takes the best weights, as patience has run out; returns the step that they are of."""
        if saver is not None:
            saver.wait()
        best_step = return_to_best(self, store)
        self.state.progress.stopped_early = True
        self.state.progress.sums.zero_()
        weights_step = step if best_step is None else best_step
        _log.info("no better validation EER: stopped after step %d, taking step %d", step, weights_step)
        return weights_step

    def _forward(self, first_steps: Sequence[int]) -> nn.Module:
        """The encoder as it is called: over all ranks' batch statistics, compiled, tried on these steps."""
        encoder = with_global_batch_norm(self.state.encoder, self.world)
        on_gpu = self.features.device.type == "cuda"
        compiles = self.recipe.compile is True or (self.recipe.compile == "auto" and on_gpu)
        if not on_gpu and not compiles:
            return encoder
        batches = [self.loader(self._stage_of(step)).batch(step) for step in first_steps]
        required = self.recipe.compile is True
        if compiles:
            result = compiled(encoder, batches, required=required, world=self.world, autocast=self._autocast)
            if result is not None:  # a compiled module has a length, and asks the encoder for it
                return result
        rehearse(encoder, batches, world=self.world, autocast=self._autocast)
        return encoder

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
        progress.sums += torch.stack([loss, output.accuracy, torch.ones_like(loss)]).double()
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
        row: dict[str, Any] = {"step": step, "epoch": round(step / self.sampler.steps_per_epoch, 4)}
        if step % interval == 0 or step == self.num_steps:
            loss, accuracy, _ = (progress.sums / progress.sums[2]).tolist()
            row |= {"loss": loss, "accuracy": accuracy, "learning_rate": stage.learning_rate(step - 1)}
            if (margin := stage.margin(step - 1)) is not None:
                row["margin"] = margin
            progress.sums.zero_()
        eer = None
        if validates and self.validation is not None:
            self._check_weights(step)
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

    def _check_weights(self, step: int) -> None:
        if not self.state.is_finite():
            raise self._diverged(step - 1, f"the weights after step {step - 1} are not finite")

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
            self._write_records(self.history.write, self.timing.write, self._upload_boards)
        if not (schedule.due() or metric is not None or stop.requested or step == self.num_steps):
            return
        # A state that is not a number must never replace one that is.
        self._check_finite()
        self._check_weights(step)
        saver.submit(step, self.state.to_state(step, self.history.text), metric=metric)
        schedule.started()
        if stop.requested:
            last = saver.wait()
            for ended in saver.take_reports():
                self.timing.saved(ended)
            self._write_records(self.history.write, self.timing.write)
            problem = f"not saved ({last.error})" if last is not None and last.error is not None else "saved"
            raise PreemptedError(
                f"stopped by SIGTERM after step {step}, which is {problem}; the same command continues"
            )

    def _write_records(self, *writers: Callable[[], None]) -> None:
        """Called when storage has answered a moment ago: one that is away would hold up the training."""
        try:
            for write in writers:
                write()
        except (OSError, StorageError) as error:
            _log.warning("the records are not written, training goes on: %s", error)

    def _upload_boards(self) -> None:
        if self.boards is not None:
            self.boards.upload_when_due()

    def _out_of_patience(self) -> bool:
        patience = self.recipe.validation.patience
        return patience is not None and self.state.progress.validations_since_best >= patience
