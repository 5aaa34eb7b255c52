"""Small trainings for tests: feature sets of artificial speakers, recipes, and runs that end by a signal."""

import copy
import hashlib
import importlib
import os
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from forked import Ended, ForkServer, Request, kill_at_operation, serve
from voxsrc import storage
from voxsrc.config import write_yaml
from voxsrc.feature_set import Encoding, Manifest
from voxsrc.feature_set.index import index_to_parquet
from voxsrc.feature_set.manifest import INDEX_NAME, MANIFEST_NAME, StoredFile, StoredShard, shard_name
from voxsrc.feature_set.shard import ShardWriter
from voxsrc.features import FbankSpec

_MOST_OPERATIONS = 250  # some steps' worth
# What trainings and evaluations would import one after the other.
_PRELOADED = (
    "torch._dynamo",
    "torch.utils.tensorboard",
    "google.cloud.storage",
    "pyarrow.parquet",
    "trainer.run",
    "trainer.finishing",
    "evaluator.evaluation",
    "evaluator.report",
)

_TINY_ENCODER = {
    "name": "ResNet_mini",
    "num_mels": 40,
    "embedding_dim": 8,
    "options": {"channels": [2, 2, 4, 4], "se_reduction": 2},
}

# A metric loss and nothing else.
ANGLEPROTO: dict[str, Any] = {
    "encoder": _TINY_ENCODER,
    "loss": {"name": "angleproto"},
    "sampler": {"utterances_per_speaker": 2, "crop_frames": 20, "few_utterances": "repeat"},
    "batch_size": 8,
    "num_steps": 24,
    "optimizer": {"name": "adam"},
    "learning_rate": {"kind": "exponential", "initial": 1e-2, "final": 1e-4},
    "validation": {"fraction": 0.0},
    "log_interval_steps": 5,
    "keep_checkpoints": 2,
    "device": "cpu",
    "onnx": "none",
}

# All that a recipe can turn on but noise, whose feature set the test names.
AAM: dict[str, Any] = {
    "encoder": {**_TINY_ENCODER, "normalisation": "none"},
    "loss": {"name": "aam", "options": {"scale": 16.0, "num_subcentres": 2}},
    "sampler": {"crop_frames": 20},
    "batch_size": 6,
    "num_steps": 18,
    "optimizer": {"name": "sgd", "weight_decay": 1e-4, "clip_norm": 1.0},
    "learning_rate": {"kind": "cosine", "initial": 0.1, "final": 1e-3, "warm_up": 0.2},
    "margin": {"initial": 0.0, "final": 0.3, "start": 0.2, "end": 0.8},
    "fine_tuning": {
        "num_steps": 6,
        "crop_frames": 30,
        "margin": 0.5,
        "learning_rate": {"kind": "constant", "initial": 1e-3},
    },
    "augment": {
        "combine": "several",
        "reverberation": {"probability": 0.4},
        "babble": {"probability": 0.4, "num_voices": [1, 3]},
        "gaussian": {"probability": 0.4},
        "spec_augment": {"probability": 0.6},
    },
    "validation": {"fraction": 0.3, "interval_steps": 4, "crop_frames": 24, "patience": 100},
    "log_interval_steps": 3,
    "keep_checkpoints": 2,
    "device": "cpu",
    "onnx": "none",
}


def recipe_file(path: Path, fields: dict[str, Any], **changes: Any) -> str:
    """Writes a recipe with some keys replaced; returns its path."""
    path.write_text(write_yaml({**copy.deepcopy(fields), **changes}))
    return str(path)


def write_speakers(
    uri: str | Path,
    *,
    num_speakers: int = 8,
    num_utterances: int = 5,
    frames: tuple[int, int] = (16, 60),
    first_speaker: int = 0,
    spread_nat: float = 1.0,
    seed: int = 0,
    spec: FbankSpec | None = None,
) -> str:
    """Writes a feature set of speakers that differ by the mean spectrum of their voices; returns its URI.

    Args:
        uri: The set's folder.
        num_speakers: From `first_speaker` on they are called id000, id001, …
        num_utterances: Of each; half of them in either shard.
        frames: Least and most frames of one.
        first_speaker: The speaker's number decides its spectrum, so that other numbers are other people.
        spread_nat: Standard deviation of a band's mean over the speakers; that over the frames is 1.
        seed: Of lengths and noise.
        spec: Of the features.
    """
    spec = spec or FbankSpec()
    encoding = Encoding.for_spec(spec, 0.2)
    draw = np.random.default_rng(seed)
    writers = [ShardWriter(encoding, key=f"key-{shard}") for shard in range(2)]
    for number in range(first_speaker, first_speaker + num_speakers):
        spectrum = spread_nat * np.random.default_rng(1000 + number).normal(size=spec.num_mels)
        for utterance in range(num_utterances):
            num_frames = int(draw.integers(*frames, endpoint=True))
            # Loud and soft frames: what the normalisation over time leaves of a constant spectrum.
            loudness = draw.uniform(0.0, 2.0, size=(num_frames, 1))
            noise = draw.normal(size=(num_frames, spec.num_mels))
            features = np.clip(loudness * spectrum + 0.5 * noise - 3.0, -13.8, 9.0).astype(np.float32)
            speaker, session = f"id{number:03d}", f"s{utterance % 2}"
            writers[utterance % 2].add(
                f"{speaker}/{session}/{utterance}.wav",
                speaker,
                session,
                features,
                num_frames * spec.hop_samples,
            )
    records = [writer.write(str(uri), shard) for shard, writer in enumerate(writers)]
    index = index_to_parquet(records)
    storage.write_bytes(storage.join(str(uri), INDEX_NAME), index)
    manifest = Manifest(
        spec=spec,
        encoding=encoding,
        num_utterances=num_speakers * num_utterances,
        num_speakers=num_speakers,
        num_frames=sum(record.num_frames for record in records),
        num_samples=sum(record.num_samples for record in records),
        shards=[
            StoredShard(shard_name(i), r.num_bytes, r.sha256, len(r.utterances), r.num_frames)
            for i, r in enumerate(records)
        ],
        index=StoredFile(INDEX_NAME, len(index), hashlib.sha256(index).hexdigest()),
    )
    storage.write_bytes(storage.join(str(uri), MANIFEST_NAME), manifest.to_json())
    return str(uri)


@dataclass(frozen=True)
class Result:
    """What must not depend on how often a training was interrupted: bytes of files, by what they are."""

    newest_checkpoint: str
    best_checkpoint: str
    history: bytes
    weights: bytes
    description: bytes

    @classmethod
    def of(cls, output_uri: str | Path) -> Self:
        """Reads a finished run; a checkpoint's name holds the SHA-256 of its content, which is verified."""
        from trainer.checkpoint import CheckpointStore

        store = CheckpointStore(str(output_uri))
        newest, best = store.load(), store.best
        assert newest is not None
        assert newest.skipped == ()

        def content(*parts: str) -> bytes:
            return storage.read_bytes(storage.join(str(output_uri), *parts))

        return cls(
            newest.entry.name,
            best.name if best is not None else "",
            content("history.jsonl"),
            content("model", "model.safetensors"),
            content("model", "model.yaml"),
        )


class Trainings(ForkServer):
    """Runs `trainer` or `evaluator` in child processes. Use as a context manager."""

    def __init__(self) -> None:
        super().__init__(__file__, {"OMP_NUM_THREADS": "1"})

    def run(
        self,
        arguments: Sequence[str],
        *,
        processes: int = 1,
        kill_after_s: float | None = None,
        kill_at_operation: int = 0,
        signal_at_call: tuple[str, int, int] | None = None,
        signal_ranks: Sequence[int] = (0,),
        await_saves: bool = False,
        program: str = "trainer.cli",
        constants: Mapping[str, Any] | None = None,
    ) -> Ended:
        """Runs once.

        Args:
            arguments: Of the command; those of `training_arguments`, say.
            processes: World size.
            kill_after_s: Seconds until SIGKILL; None lets it run to its end.
            kill_at_operation: 1 kills before the first operation on a file or a bucket, and so on.
            signal_at_call: `module:name.name`, the number of a call from 1, and a signal that the process
                sends to itself before it carries out this call.
            signal_ranks: The processes that do so.
            await_saves: Each step's save ends before the next step begins, so that a slow disk or a busy
                machine decides nothing: neither which steps are saved nor what a call's number means.
            program: Module whose `main` is run.
            constants: By `module:NAME`, values that constants have in this run.
        """
        request = {
            "arguments": list(arguments),
            "processes": processes,
            "kill_at_operation": kill_at_operation,
            "signal_at_call": signal_at_call,
            "signal_ranks": list(signal_ranks),
            "await_saves": await_saves,
            "program": program,
            "constants": dict(constants or {}),
            "emulator": os.environ.get("STORAGE_EMULATOR_HOST"),
            "meeting": str(Path(self.folder) / uuid.uuid4().hex),
        }
        return self.fork(request, processes=processes, kill_after_s=kill_after_s)

    def run_killed(self, arguments: Sequence[str], chance: random.Random, longest_s: float) -> Ended:
        """Runs until a random instant or the end; instants are of time, or of reading and writing."""
        if chance.random() < 0.5:
            return self.run(arguments, kill_after_s=longest_s * chance.random())
        return self.run(arguments, kill_at_operation=chance.randrange(1, _MOST_OPERATIONS))


def training_arguments(recipe: str, features: str | Path, output: str | Path, *more: str) -> list[str]:
    """The command's arguments, saving after every step."""
    where = ["--recipe", recipe, "--features", str(features), "--output", str(output)]
    return [*where, "--set", "checkpoint_interval_s=0", *more]


def write_no_curves(output_uri: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """In place of `draw_curves`: the same file, but without the plot, which is half of a tiny training."""
    from trainer.history import CURVES_NAME

    storage.write_bytes(storage.join(output_uri, CURVES_NAME), b"no plot")


def _train(request: Request, rank: int) -> int:
    if request["emulator"]:
        os.environ["STORAGE_EMULATOR_HOST"] = request["emulator"]
    if request["processes"] > 1:
        _meet(request["meeting"], rank, request["processes"])
    main: Callable[[list[str]], int] = importlib.import_module(request["program"]).main
    setattr(importlib.import_module("trainer.run"), "draw_curves", write_no_curves)  # noqa: B010
    for place, value in request["constants"].items():
        module, _, name = place.partition(":")
        setattr(importlib.import_module(module), name, value)
    if request["await_saves"]:
        await_saves()
    if request["kill_at_operation"]:
        kill_at_operation(request["kill_at_operation"])
    if request["signal_at_call"] and rank in request["signal_ranks"]:
        _signal_at_call(*request["signal_at_call"])
    return main(request["arguments"])


def _meet(path: str, rank: int, size: int) -> None:
    """The processes find each other by a file: a port that is free now may be taken when they listen."""
    import torch.distributed as dist

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    join = dist.init_process_group
    dist.init_process_group = partial(join, init_method=f"file://{path}", rank=rank, world_size=size)


def await_saves(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Has each save end before the training goes on; `put` sets the attribute, and may set it back later."""
    from trainer.checkpoint.saver import AsyncSaver

    submit = AsyncSaver.submit

    def submit_and_wait(self: AsyncSaver, *arguments: Any, **options: Any) -> float:
        copy_s = submit(self, *arguments, **options)
        self.wait()
        return copy_s

    put(AsyncSaver, "submit", submit_and_wait)


def _signal_at_call(place: str, number: int, signal_number: int) -> None:
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original, seen = getattr(owner, name), 0

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal_number)
        return original(*arguments, **options)

    setattr(owner, name, counting)


if __name__ == "__main__":
    for module in _PRELOADED:
        importlib.import_module(module)
    serve(_train)
