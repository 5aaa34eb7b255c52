"""The trainer as a whole, in this process: it learns, and each thing that can go wrong is one clear line."""

import json
import logging
import math
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor, nn

from commands import Command, Outcome, contents
from gcs_server import GcsServer
from trainer import cli
from trainer.batches import Batch
from trainer.checkpoint import CheckpointStore
from trainer.data import DeviceFeatures
from trainer.devices import prepare_device
from trainer.distributed import World
from trainer.losses import LossOutput
from trainer.recipe import Recipe
from trainer.rehearsal import compiled, rehearse
from trainer.state import TrainingState
from trainer.training import Training
from trainer.validation import Validation
from training_runs import AAM, ANGLEPROTO, Result, recipe_file, training_arguments, write_speakers
from voxsrc import storage
from voxsrc.config import from_mapping
from voxsrc.device import chosen_device
from voxsrc.errors import ConfigError, StorageError, VoxsrcError
from voxsrc.features import FbankSpec
from voxsrc.models.stored import load_model

SMALL_DISK_BYTES = 700_000


@pytest.fixture
def trainer(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process."""

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = cli.main(arguments)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_speakers(tmp_path_factory.mktemp("features") / "set")


@pytest.fixture
def arguments(features: str, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments that train by ANGLEPROTO, some of its keys replaced, into tmp_path / run."""

    def of(
        *more: str, output: str | Path = tmp_path / "run", using: str = features, **changes: Any
    ) -> list[str]:
        recipe = recipe_file(tmp_path / "recipe.yaml", ANGLEPROTO, **changes)
        return training_arguments(recipe, using, output, *more)

    return of


Arguments = Callable[..., list[str]]


def at_step(patch: pytest.MonkeyPatch, actions: dict[int, Callable[[Training], object]]) -> None:
    """Has these things done when the training comes to these steps."""
    original = Training._set_rates

    def acting(training: Training, stage: Any, step: int) -> None:
        if step in actions:
            actions[step](training)
        original(training, stage, step)

    patch.setattr(Training, "_set_rates", acting)


def test_it_learns(trainer: Command, tmp_path: Path) -> None:
    features = write_speakers(tmp_path / "speakers", num_speakers=40, num_utterances=8, frames=(40, 80))
    recipe = recipe_file(
        tmp_path / "recipe.yaml",
        ANGLEPROTO,
        encoder={
            "name": "ResNet_mini",
            "num_mels": 40,
            "embedding_dim": 32,
            "normalisation": "none",
            "options": {"channels": [4, 8, 8, 16], "se_reduction": 4},
        },
        sampler={"utterances_per_speaker": 2, "crop_frames": 32},
        batch_size=32,
        num_steps=60,
        learning_rate={"kind": "cosine", "initial": 0.02, "final": 1e-4, "warm_up": 0.1},
        validation={"fraction": 0.4, "interval_steps": 30, "crop_frames": 40},
    )
    untrained = Training(Recipe.load(recipe), DeviceFeatures.open(features), features, str(tmp_path), World())
    assert untrained.validation is not None
    before = untrained.validation.equal_error_rate(untrained.state.encoder)
    assert trainer("--recipe", recipe, "--features", features, "--output", str(tmp_path / "run")).code == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["validation_eer"] < before / 2
    assert rows[-1]["loss"] < rows[0]["loss"] / 2


def test_a_dry_run_writes_nothing(trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
    outcome = trainer(*arguments("--dry-run"))
    assert outcome.code == 0
    assert "ResNet_mini, 896 parameters, angleproto loss, fp32 on cpu, 24 steps" in outcome.output
    assert "dry run: nothing was written" in outcome.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": {"name": "ResNet_mini", "num_mels": 64}}, "has 40 mel bands, the recipe's encoder"),
        ({"sampler": {"utterances_per_speaker": 2, "crop_frames": 7}}, "sampler.crop_frames is 7; ResNet_"),
        (
            {"fine_tuning": {"num_steps": 2, "crop_frames": 5, "learning_rate": {"kind": "constant"}}},
            "fine_tuning.crop_frames is 5; ResNet_mini needs at least",
        ),
        ({"validation": {"fraction": 0.3, "crop_frames": 6}}, "validation.crop_frames is 6; ResNet_mini"),
        ({"validation": {"fraction": 0.3, "max_utterances": 1}}, "raise validation.fraction, or set it to 0"),
        ({"validation": {"fraction": 0.9}}, "features of more speakers, or set validation.fraction to 0"),
        (
            {
                "sampler": {"utterances_per_speaker": 2, "crop_frames": 12, "short_utterances": "refuse"},
                "fine_tuning": {"num_steps": 2, "crop_frames": 40, "learning_rate": {"kind": "constant"}},
            },
            "utterances are shorter than sampler.crop_frames, 40",
        ),
        ({"batch_size": 18}, "the training set has 8: set batch_size to at most 16"),
        ({"batch_size": 7}, "batch_size is 7; expected a multiple of sampler.utterances_per_speaker, 2"),
        ({"sampler": {"utterances_per_speaker": 6, "crop_frames": 12}, "batch_size": 12}, "id000 has 5"),
        ({"precision": "fp16"}, "precision is fp16, which needs a GPU; --set precision=fp32"),
        ({"data": {"placement": "gpu"}}, "data.placement is gpu, but the device is cpu"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_found_before_the_first_step(
    trainer: Command, arguments: Arguments, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    outcome = trainer(*arguments(**changes))
    assert outcome.code == 1
    assert message in outcome.error
    assert not (tmp_path / "run").exists()


def test_too_few_speakers(trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
    one = write_speakers(tmp_path / "one", num_speakers=1)
    outcome = trainer(*arguments(using=one))
    assert "the training set has 1 speaker" in outcome.error
    three = write_speakers(tmp_path / "three", num_speakers=3)
    outcome = trainer(*arguments(using=three, validation={"fraction": 0.1}))
    assert f"{three}: 3 speakers cannot be split" in outcome.error


def test_features_that_are_not_there_or_of_another_kind(
    trainer: Command, arguments: Arguments, tmp_path: Path
) -> None:
    outcome = trainer(*arguments(using=str(tmp_path / "nowhere")))
    assert outcome.code == 1
    assert str(tmp_path / "nowhere") in outcome.error
    missing = str(tmp_path / "no noise")
    for kind in ("noise", "music"):
        outcome = trainer(*arguments(augment={kind: {"probability": 0.5, "features": missing}}))
        assert outcome.error.startswith(f"augment.{kind}.features: {missing} does not exist; ")
    noise = write_speakers(tmp_path / "noise", num_speakers=1, spec=FbankSpec(hop_ms=12.5))
    outcome = trainer(*arguments(augment={"noise": {"probability": 0.5, "features": noise}}))
    assert outcome.code == 1
    assert (
        f"augment.noise.features: {noise} has other features than asked for: hop_ms is 12.5" in outcome.error
    )


def test_cuda_asked_for_and_absent(
    trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "device is 'cuda', but torch" in trainer(*arguments(device="cuda")).error
    assert "sees no GPU; take cpu" in trainer(*arguments(device="cuda:1")).error
    assert chosen_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "there are 1 GPUs, from cuda:0 on" in trainer(*arguments(device="cuda:1")).error


def test_a_gpu_gets_its_number(monkeypatch: pytest.MonkeyPatch, arguments: Arguments) -> None:
    chosen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", chosen.append, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    recipe = Recipe.load(arguments()[1])
    for device, world in (("cuda", World()), ("cuda:1", World()), ("cuda", World(1, 2, 1))):
        chosen.append(prepare_device(torch.device(device), recipe, world))
    cuda = [torch.device("cuda", number) for number in range(2)]
    assert chosen == [0, cuda[0], 1, cuda[1], 1, cuda[1]]
    with pytest.raises(ConfigError, match="3 processes, but 2 GPUs"):
        prepare_device(torch.device("cuda"), recipe, World(2, 3, 2))


def interrupted(trainer: Command, command: list[str], patch: pytest.MonkeyPatch) -> None:
    """Trains to the end, but for the model."""

    def fail(*_: Any, **__: Any) -> None:
        raise VoxsrcError("interrupted")

    with patch.context() as within:
        within.setattr("trainer.finishing.write_outputs", fail)
        assert trainer(*command).error == "interrupted"


@pytest.mark.parametrize("finished", [False, True])
def test_another_training_in_the_same_output(
    trainer: Command,
    arguments: Arguments,
    features: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: bool,
) -> None:
    if finished:
        assert trainer(*arguments(num_steps=2)).code == 0
    else:
        interrupted(trainer, arguments(num_steps=2), monkeypatch)
    before = contents(tmp_path / "run")
    outcome = trainer(*arguments(num_steps=3, batch_size=6))
    assert "batch_size: 8 → 6; num_steps: 2 → 3" in outcome.error
    assert "choose another --output" in outcome.error
    # The same utterances of the same lengths, but not the same sounds.
    other = write_speakers(tmp_path / "other", spread_nat=2.0)
    index = Path(other) / "utterances.parquet"
    assert index.read_bytes() == (Path(features) / "utterances.parquet").read_bytes()
    outcome = trainer(*arguments(num_steps=2, using=other))
    assert ("features: " if finished else "features_sha256: ") in outcome.error
    for name in (name for name in before if not name.endswith(("writer.json", "latest.json"))):
        assert (tmp_path / "run" / name).read_bytes() == before[name]
    # Where and how fast it runs may change.
    assert (
        trainer(*arguments("--set", "keep_checkpoints=5", num_steps=2, data={"placement": "ram"})).code == 0
    )


def test_resume_must_and_never(trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
    outcome = trainer(*arguments("--resume", "must", num_steps=2))
    assert "--resume must" in outcome.error
    with CheckpointStore(str(tmp_path / "run")).open_for_writing("killed before its first checkpoint"):
        pass
    assert "holds no checkpoint" in trainer(*arguments("--resume", "must", num_steps=2)).error
    assert trainer(*arguments("--resume", "never", num_steps=2)).code == 0
    assert "--resume never" in trainer(*arguments("--resume", "never", num_steps=2)).error
    assert trainer(*arguments("--resume", "must", num_steps=2)).code == 0


def test_a_second_writer_is_refused(trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
    with CheckpointStore(str(tmp_path / "run")).open_for_writing("pod-7"):
        outcome = trainer(*arguments(num_steps=2))
    assert outcome.code == 1
    assert "run 'pod-7'" in outcome.error
    assert not (tmp_path / "run" / "model").exists()


def all_finite(state: dict[str, Any]) -> bool:
    tensors = [*state["encoder"].values(), *state["loss"].values()]
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def test_a_loss_that_is_not_a_number(trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
    # The warm-up lets some steps go well.
    rates = {"kind": "constant", "initial": 1e38, "warm_up": 1.0, "warm_up_from": 0.0}
    outcome = trainer(*arguments(learning_rate=rates, optimizer={"name": "sgd"}, log_interval_steps=100))
    assert outcome.code == 1
    checkpoint = CheckpointStore(str(tmp_path / "run")).load()
    assert checkpoint is not None
    assert all_finite(checkpoint.state)
    assert "is not finite" in outcome.error or "are not finite" in outcome.error
    assert f"The last good checkpoint is {tmp_path}/run/checkpoints/{checkpoint.entry.name}" in outcome.error
    assert "The batch's utterances: id0" in outcome.error
    assert outcome.error.count(".wav") == 8
    assert not (tmp_path / "run" / "model").exists()


def test_the_step_of_a_bad_loss_is_named_however_late_it_is_seen(
    trainer: Command, arguments: Arguments, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(training: Training) -> None:
        next(training.state.encoder.parameters()).data.fill_(math.nan)

    at_step(monkeypatch, {3: spoil})
    command = arguments("--set", "checkpoint_interval_s=1000")
    outcome = trainer(*command)
    assert "the loss of step 3 is not finite (learning rate 0.00562341, precision fp32)" in outcome.error
    assert "No checkpoint was saved before" in outcome.error
    training = Training(Recipe.load(command[1]), DeviceFeatures.open(features), features, "unused", World())
    rows = training.sampler.batch(3).rows
    names = ", ".join(training.features.index.utterance_ids[row] for row in rows)
    assert f"The batch's utterances: {names}." in outcome.error


def test_weights_that_are_no_numbers_are_never_saved(
    trainer: Command, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite loss may have a gradient that is none: its state must not become a checkpoint."""
    original, calls = Training._loss, 0

    def without_gradient(training: Training, embeddings: Tensor, batch: Any) -> LossOutput:
        nonlocal calls
        calls += 1
        output = original(training, embeddings, batch)
        if calls < 5:
            return output
        return LossOutput(output.loss + (0.0 * embeddings.sum()).abs().sqrt(), output.accuracy)

    monkeypatch.setattr(Training, "_loss", without_gradient)
    outcome = trainer(*arguments())
    assert "the weights after step 4 are not finite" in outcome.error
    checkpoint = CheckpointStore(str(tmp_path / "run")).load()
    assert checkpoint is not None
    assert checkpoint.entry.step == 4
    assert all_finite(checkpoint.state)
    assert checkpoint.entry.name in outcome.error


def test_weights_that_are_no_numbers_are_not_validated(
    trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their embeddings' scores would be what is complained of, without step and remedy."""

    def spoil(training: Training) -> None:
        next(training.state.encoder.parameters()).data.fill_(float("nan"))
        monkeypatch.setattr(Training, "_update", lambda *_: LossOutput(torch.ones(()), torch.ones(())))

    at_step(monkeypatch, {3: spoil})
    validation = {"fraction": 0.3, "interval_steps": 4, "crop_frames": 24}
    outcome = trainer(*arguments(validation=validation))
    assert outcome.code == 1
    assert "the weights after step 3 are not finite" in outcome.error
    assert "Lower learning_rate.initial" in outcome.error


def test_out_of_memory_says_which_batch_size_to_try(
    trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(_: Training) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    at_step(monkeypatch, {2: run_out})
    tuning = {"num_steps": 2, "crop_frames": 30, "learning_rate": {"kind": "constant"}}
    outcome = trainer(*arguments(batch_size=12, fine_tuning=tuning))
    assert outcome.code == 1
    assert "out of memory at batch_size 12, crops up to 30 frames" in outcome.error
    assert "--set batch_size=6" in outcome.error
    assert "Tried to allocate 20 GiB" in outcome.error


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of SMALL_DISK_BYTES; without the right to mount, a folder that refuses while `full` is in it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}"]
    mounted = subprocess.run(["mount", *options, "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        original = storage.write_bytes

        def write_bytes(uri: str, data: Any, **options: Any) -> Any:
            if (disk / "full").exists():
                raise StorageError(f"{uri}: cannot write: No space left on device")
            return original(uri, data, **options)

        monkeypatch.setattr(storage, "write_bytes", write_bytes)
    yield disk
    if not mounted.returncode:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> None:
    with (disk / "full").open("wb", buffering=0) as file:
        try:
            while file.tell() < 10 * SMALL_DISK_BYTES and file.write(b"x" * 4096) == 4096:
                pass
        except OSError as error:
            assert "No space left" in str(error)


def test_a_disk_that_is_full_for_a_while(
    trainer: Command,
    arguments: Arguments,
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert trainer(*arguments(output=tmp_path / "undisturbed")).code == 0
    at_step(monkeypatch, {5: lambda _: fill(small_disk), 15: lambda _: (small_disk / "full").unlink()})
    with caplog.at_level(logging.WARNING):
        outcome = trainer(*arguments(output=small_disk / "run"))
    assert outcome.code == 0, outcome.errors
    assert "not saved, training goes on" in caplog.text
    assert "No space left on device" in caplog.text
    assert Result.of(small_disk / "run") == Result.of(tmp_path / "undisturbed")


def test_a_disk_that_stays_full(
    trainer: Command,
    arguments: Arguments,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, {5: lambda _: fill(small_disk)})
        outcome = trainer(*arguments(output=small_disk / "run"))
    assert outcome.code == 1
    assert "No space left on device" in outcome.error
    assert not (small_disk / "run" / "model").exists()
    left = CheckpointStore(str(small_disk / "run")).load()
    assert left is not None
    assert left.skipped == ()
    assert left.entry.step <= 5


def test_a_bucket_that_may_not_be_written(
    trainer: Command, arguments: Arguments, bucket: str, gcs_server: GcsServer
) -> None:
    gcs_server.fail("status", method="POST", path="/upload", status=403, times=100)
    outcome = trainer(*arguments(output=f"{bucket}/run", num_steps=2))
    assert outcome.code == 1
    assert bucket in outcome.error
    assert "403" in outcome.error or "permission" in outcome.error


def test_a_bucket_that_is_not_there(trainer: Command, arguments: Arguments, gcs_server: GcsServer) -> None:
    outcome = trainer(*arguments(output="gs://no-such-bucket/run", num_steps=2))
    assert outcome.code == 1
    assert "gs://no-such-bucket" in outcome.error


def test_sigterm_when_nothing_can_be_saved_does_not_claim_to_have_saved(
    trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise StorageError("the network is away")

    def stop(_: Training) -> None:
        monkeypatch.setattr(CheckpointStore, "save_snapshot", refuse)
        os.kill(os.getpid(), signal.SIGTERM)

    at_step(monkeypatch, {4: stop})
    outcome = trainer(*arguments())
    assert outcome.code == 1
    assert "stopped by SIGTERM after step 5, which is not saved (the network is away)" in outcome.error


def test_tensorboard_that_cannot_write_ends_no_training(
    trainer: Command, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
    with caplog.at_level(logging.WARNING):
        assert trainer(*arguments(num_steps=6)).code == 0
    assert caplog.text.count("TensorBoard's events are not written any more") == 1


def test_a_dry_run_looks_at_the_noise_too(trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
    noise = {"probability": 0.5, "features": str(tmp_path / "nowhere")}
    for more in (["--dry-run"], []):
        outcome = trainer(*arguments(*more, augment={"noise": noise}))
        assert outcome.code == 1
        assert "nowhere" in outcome.error
        assert not (tmp_path / "run").exists()


class TestNoise:
    @pytest.fixture
    def noise(self, tmp_path: Path) -> str:
        return write_speakers(tmp_path / "noise", num_speakers=1, first_speaker=90, spread_nat=0.0)

    def test_it_may_lie_elsewhere_but_not_change(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, noise: str
    ) -> None:
        moved = tmp_path / "moved"

        def of(features: str | Path) -> list[str]:
            return arguments(num_steps=2, augment={"noise": {"probability": 0.5, "features": str(features)}})

        assert trainer(*of(noise)).code == 0
        Path(noise).rename(moved)
        assert "finished already" in trainer(*of(moved)).output
        (tmp_path / "run" / "model" / "model.yaml").unlink()
        assert trainer(*of(moved)).code == 0
        other = write_speakers(tmp_path / "other", num_speakers=1, first_speaker=91, spread_nat=0.0)
        assert "noise_sha256: " in trainer(*of(other)).error
        (tmp_path / "run" / "model" / "model.yaml").unlink()
        assert "noise_sha256: " in trainer(*of(other)).error

    def test_without_a_probability_it_is_said_that_there_is_none(
        self, trainer: Command, arguments: Arguments, noise: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            assert trainer(*arguments("--dry-run", augment={"noise": {"features": noise}})).code == 0
        assert "augment.noise.probability is 0: nothing is added" in caplog.text


def test_what_can_be_no_output_is_found_before_the_features_are_read(
    trainer: Command, arguments: Arguments, features: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    outcome = trainer(*arguments(output=tmp_path / "file", using=str(tmp_path / "nowhere")))
    assert "is a file; expected a folder" in outcome.error
    outcome = trainer(*arguments(output=features, using=str(tmp_path / "nowhere")))
    assert "is a feature set; choose another folder" in outcome.error
    assert not (Path(features) / "checkpoints").exists()


class TestExport:
    VALIDATION: ClassVar[dict[str, Any]] = {"fraction": 0.3, "interval_steps": 2, "crop_frames": 24}

    def test_the_model_of_a_checkpoint_while_another_run_writes(
        self, trainer: Command, arguments: Arguments, tmp_path: Path
    ) -> None:
        changes = {"num_steps": 8, "validation": self.VALIDATION}
        assert trainer(*arguments(**changes)).code == 0
        store = CheckpointStore(str(tmp_path / "run"))
        with store.open_for_writing("still running"):
            for which in ("newest", "best"):
                outcome = trainer(*arguments("--export", which, **changes))
                assert outcome.code == 0, outcome.errors
                loaded = store.load(best=which == "best")
                assert loaded is not None
                folder = tmp_path / "run" / "exported" / f"step-{loaded.entry.step:09d}"
                assert str(folder) in outcome.output
                model = load_model(str(folder))
                assert model.description.metrics["steps"] == loaded.entry.step
                for name, tensor in model.encoder.state_dict().items():
                    torch.testing.assert_close(tensor, loaded.state["encoder"][name], rtol=0, atol=0)
        newest = tmp_path / "run" / "exported" / "step-000000008"
        for name in ("model.safetensors", "model.yaml"):
            assert (newest / name).read_bytes() == (tmp_path / "run" / "model" / name).read_bytes()

    def test_nothing_to_export(self, trainer: Command, arguments: Arguments) -> None:
        assert "has no checkpoint to export" in trainer(*arguments("--export", "newest")).error
        assert trainer(*arguments(num_steps=2)).code == 0
        outcome = trainer(*arguments("--export", "best", num_steps=2))
        assert "has no checkpoint with a validation EER to export" in outcome.error
        outcome = trainer(*arguments("--export", "newest", num_steps=3))
        assert "num_steps: 2 → 3" in outcome.error


class TestPatience:
    # The rate is so high that what is learned is lost again.
    CHANGES: ClassVar[dict[str, Any]] = {
        "learning_rate": {"kind": "constant", "initial": 0.5},
        "validation": {"fraction": 0.3, "interval_steps": 2, "crop_frames": 24, "patience": 2},
    }

    def test_the_best_weights_are_taken(self, trainer: Command, arguments: Arguments, tmp_path: Path) -> None:
        assert trainer(*arguments(num_steps=60, **self.CHANGES)).code == 0
        output = str(tmp_path / "run")
        rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
        judged = [(row["validation_eer"], row["step"]) for row in rows if "validation_eer" in row]
        eer, step = min(judged)
        assert step == rows[-1]["step"] - 2 * 2 < 56, "two validations later it was stopped"
        model = load_model(storage.join(output, "model"))
        metrics = model.description.metrics
        assert metrics["stopped_early"]
        assert (metrics["steps"], metrics["validation_eer"]) == (step, eer)
        assert metrics["best_validation_eer"] == eer
        best = CheckpointStore(output).load(best=True)
        assert best is not None
        assert best.entry.step == step
        for name, tensor in model.encoder.state_dict().items():
            torch.testing.assert_close(tensor, best.state["encoder"][name], rtol=0, atol=0)

    def test_they_are_taken_when_it_runs_out_with_the_last_step_also_after_a_kill(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        eers = {2: 0.1, 4: 0.3, 6: 0.2}
        judged = iter([*eers.values()] * 2)
        monkeypatch.setattr(Validation, "equal_error_rate", lambda *_: next(judged))
        outcomes = []
        for name in ("plain", "run"):
            command = arguments(output=tmp_path / name, num_steps=6, **self.CHANGES)
            if name == "run":
                interrupted(trainer, command, monkeypatch)
            assert trainer(*command).code == 0
            metrics = load_model(str(tmp_path / name / "model")).description.metrics
            assert (metrics["steps"], metrics["validation_eer"]) == (2, 0.1)
            assert metrics["stopped_early"]
            outcomes.append(Result.of(tmp_path / name))
        assert outcomes[0] == outcomes[1]

    def test_a_damaged_best_gives_way_to_the_next_best(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judged = iter([0.1, 0.3, 0.2])
        monkeypatch.setattr(Validation, "equal_error_rate", lambda *_: next(judged))
        command = arguments(num_steps=9, keep_checkpoints=9, **self.CHANGES)
        interrupted(trainer, command, monkeypatch)
        best = CheckpointStore(str(tmp_path / "run")).best
        assert best is not None
        assert best.step == 2
        (tmp_path / "run" / "checkpoints" / best.name).write_bytes(b"damaged")
        outcome = trainer(*command)
        assert outcome.code == 0, outcome.errors
        metrics = load_model(str(tmp_path / "run" / "model")).description.metrics
        assert (metrics["steps"], metrics["best_validation_eer"]) == (6, 0.2)

    def test_fine_tuning_begins_with_the_best_weights(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        output, seen = str(tmp_path / "run"), []

        def look(training: Training) -> None:
            best = CheckpointStore(output).load(best=True)
            assert best is not None
            for name, tensor in training.state.encoder.state_dict().items():
                torch.testing.assert_close(tensor, best.state["encoder"][name], rtol=0, atol=0)
            seen.append(best.entry.step)

        losses: list[float] = []
        original = Training._loss

        def noted(*arguments: Any) -> LossOutput:
            output = original(*arguments)
            losses.append(float(output.loss.detach()))
            return output

        monkeypatch.setattr(Training, "_loss", noted)
        at_step(monkeypatch, {60: look})
        tuning = {"num_steps": 3, "crop_frames": 30, "learning_rate": {"kind": "constant", "initial": 1e-6}}
        changes = {**self.CHANGES, "num_steps": 60, "fine_tuning": tuning, "log_interval_steps": 1000}
        assert trainer(*arguments(**changes)).code == 0
        rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
        steps = [row["step"] for row in rows]
        assert len(seen) == 1
        assert max(step for step in steps if step <= 60) == seen[0] + 4
        assert steps[-2:] == [62, 63], "patience begins anew"
        assert rows[-1]["loss"] == pytest.approx(sum(losses[-3:]) / 3), "of the second stage's steps alone"
        assert load_model(storage.join(output, "model")).description.metrics["stopped_early"]


class TestInitialModel:
    @pytest.fixture
    def model(self, trainer: Command, arguments: Arguments, tmp_path: Path) -> Path:
        assert trainer(*arguments(output=tmp_path / "first", num_steps=4)).code == 0
        return tmp_path / "first" / "model"

    def test_it_is_begun_with(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, model: Path
    ) -> None:
        still = {"kind": "constant", "initial": 1e-12}
        changes = {"initial_model": str(model), "num_steps": 2, "learning_rate": still, "seed": 5}
        assert trainer(*arguments(**changes)).code == 0
        first, second = load_model(str(model)), load_model(str(tmp_path / "run" / "model"))
        assert second.description.provenance["initial_model"] == first.model_hash
        theirs = dict(first.encoder.named_parameters())
        for name, parameter in second.encoder.named_parameters():
            torch.testing.assert_close(parameter, theirs[name], rtol=0, atol=1e-9)

    def test_another_one_is_another_training(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, model: Path
    ) -> None:
        assert trainer(*arguments(initial_model=str(model), num_steps=2)).code == 0
        (tmp_path / "run" / "model" / "model.yaml").unlink()
        assert trainer(*arguments(output=tmp_path / "other", num_steps=5)).code == 0
        for file in ("model.safetensors", "model.yaml"):
            (model / file).write_bytes((tmp_path / "other" / "model" / file).read_bytes())
        outcome = trainer(*arguments(initial_model=str(model), num_steps=2))
        assert outcome.code == 1
        assert "initial_model: " in outcome.error

    def test_it_may_be_gone_when_the_training_has_begun(
        self,
        trainer: Command,
        arguments: Arguments,
        tmp_path: Path,
        model: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        command = arguments(initial_model=str(model), num_steps=2)
        interrupted(trainer, command, monkeypatch)
        moved = model.rename(tmp_path / "moved")
        assert trainer(*command).code == 0
        description = load_model(str(tmp_path / "run" / "model")).description
        assert description.provenance["initial_model"] == load_model(str(moved)).model_hash
        assert "finished already" in trainer(*command).output
        assert str(model) in trainer(*arguments(initial_model=str(model), output=tmp_path / "new")).error

    def test_one_that_does_not_fit_is_refused(
        self, trainer: Command, arguments: Arguments, tmp_path: Path, model: Path
    ) -> None:
        encoder = {**ANGLEPROTO["encoder"], "embedding_dim": 9}
        outcome = trainer(*arguments(initial_model=str(model), encoder=encoder))
        assert outcome.code == 1
        assert "another encoder than the recipe: embedding_dim: 8 → 9" in outcome.error
        other = write_speakers(tmp_path / "others", spec=FbankSpec(preemphasis=0.0))
        outcome = trainer(*arguments(initial_model=str(model), using=other))
        assert outcome.code == 1
        assert "has other features than the model was trained on: preemphasis" in outcome.error
        assert not (tmp_path / "run").exists()


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


def test_a_first_step_that_overflows_in_half_precision_spoils_nothing() -> None:
    """The scaler skips it; a fused SGD would go on from a momentum that was never written."""
    recipe = from_mapping(Recipe, {**AAM, "precision": "fp16"})
    state = TrainingState.new(recipe, 4, torch.device("cpu"))
    state.set_learning_rate(0.1)
    state.scaler.scale(torch.ones(()))  # creates the scale
    for gradient in (float("inf"), 1.0, 1.0):
        for group in state.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.full_like(parameter, gradient)
        state.scaler.step(state.optimizer)
        state.scaler.update()
    assert state.is_finite()
    buffers = [values["momentum_buffer"] for values in state.optimizer.state.values()]
    assert buffers
    assert all(buffer.isfinite().all() for buffer in buffers)


def test_margins_of_the_first_stage_do_not_follow_those_of_the_second(features: str, tmp_path: Path) -> None:
    tuning = {**AAM["fine_tuning"], "margin": 0.5}
    recipe = recipe_file(
        tmp_path / "recipe.yaml",
        AAM,
        margin=None,
        fine_tuning=tuning,
        loss={"name": "aam", "options": {"margin": 0.1}},
    )
    training = Training(Recipe.load(recipe), DeviceFeatures.open(features), features, str(tmp_path), World())
    first, second = training.stages
    training._set_rates(first, 0)
    margins = [training.state.loss.get_buffer("margin").item()]
    training._set_rates(second, second.first_step)
    margins.append(training.state.loss.get_buffer("margin").item())
    assert margins == pytest.approx([0.1, 0.5])


def test_a_state_is_restored_to_the_bit(features: str, tmp_path: Path) -> None:
    recipe = Recipe.load(recipe_file(tmp_path / "recipe.yaml", AAM))
    states = [TrainingState.new(recipe, 6, torch.device("cpu")) for _ in range(2)]
    for seed, state in enumerate(states):
        torch.manual_seed(seed)
        for _ in range(2):
            output = state.loss(state.encoder(torch.randn(6, 40, 20)), torch.arange(6))
            output.loss.backward()
            state.set_learning_rate(0.1)
            state.optimizer.step()
        state.progress.sums += seed
    with CheckpointStore(str(tmp_path / "run")).open_for_writing("test") as store:
        first = store.save(2, states[0].to_state(2, "")).name
        other = store.save(2, states[1].to_state(2, "")).name
        loaded = store.load()
        assert loaded is not None
        states[0].load(loaded.state)
        assert store.save(2, states[0].to_state(2, "")).name == other != first
