"""Small trainings for tests: feature sets of artificial speakers, recipes, and runs that end by a signal.

A server process imports everything once and forks a child for each process of a run, so that a kill costs no
more than the run itself.
"""

import contextlib
import copy
import hashlib
import importlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np

from voxsrc import storage
from voxsrc.config import write_yaml
from voxsrc.feature_set import Encoding, Manifest
from voxsrc.feature_set.index import index_to_parquet
from voxsrc.feature_set.manifest import INDEX_NAME, MANIFEST_NAME, StoredFile, StoredShard, shard_name
from voxsrc.feature_set.shard import ShardWriter
from voxsrc.features import FbankSpec

_LONGEST_RUN_S = 120.0
_MOST_OPERATIONS = 250  # some steps' worth
# What reading and writing are made of, as Python's audit events name it; each is preceded by one.
_OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.utime", "http.client.send"}

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


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        codes: Exit code of each process, negative the signal that killed it.
        seconds: How long it took.
        text: What it printed, on standard output and standard error.
    """

    codes: list[int]
    seconds: float
    text: str

    @property
    def killed(self) -> bool:
        """Whether it was killed before its end."""
        return -signal.SIGKILL in self.codes

    @property
    def succeeded(self) -> bool:
        """Whether all processes did."""
        return not any(self.codes)


class Trainings:
    """Runs `trainer` in child processes. Use as a context manager."""

    def __enter__(self) -> Self:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()

    def run(
        self,
        arguments: Sequence[str],
        *,
        processes: int = 1,
        kill_after_s: float = _LONGEST_RUN_S,
        kill_at_operation: int = 0,
        signal_at_call: tuple[str, int, int] | None = None,
        program: str = "trainer.cli",
        constants: Mapping[str, Any] | None = None,
    ) -> Ended:
        """Runs once.

        Args:
            arguments: Of the command; those of `training_arguments`, say.
            processes: World size.
            kill_after_s: Seconds until SIGKILL.
            kill_at_operation: 1 kills before the first operation on a file or a bucket, and so on.
            signal_at_call: `module:name.name`, the number of a call from 1, and a signal that the process
                sends to itself before it carries out this call.
            program: Module whose `main` is run.
            constants: By `module:NAME`, values that constants have in this run.
        """
        assert self._server.stdin
        assert self._server.stdout
        request = {
            "arguments": list(arguments),
            "processes": processes,
            "kill_after_s": kill_after_s,
            "kill_at_operation": kill_at_operation,
            "signal_at_call": signal_at_call,
            "program": program,
            "constants": dict(constants or {}),
            "emulator": os.environ.get("STORAGE_EMULATOR_HOST"),
        }
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return Ended(**json.loads(self._server.stdout.readline()))

    def run_killed(self, arguments: Sequence[str], chance: random.Random, longest_s: float) -> Ended:
        """Runs until a random instant or the end; instants are of time, or of reading and writing."""
        if chance.random() < 0.5:
            return self.run(arguments, kill_after_s=longest_s * chance.random())
        return self.run(arguments, kill_at_operation=chance.randrange(1, _MOST_OPERATIONS))


def training_arguments(recipe: str, features: str | Path, output: str | Path, *more: str) -> list[str]:
    """The command's arguments, saving after every step."""
    where = ["--recipe", recipe, "--features", str(features), "--output", str(output)]
    return [*where, "--set", "checkpoint_interval_s=0", *more]


def _serve() -> None:
    for module in ("torch._dynamo", "torch.utils.tensorboard", "trainer.finishing", "google.cloud.storage"):
        importlib.import_module(module)
    from trainer.history import draw_curves

    with TemporaryDirectory() as folder:  # the first plot looks for fonts
        draw_curves(folder, [])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for line in sys.stdin:
        print(json.dumps(_perform(json.loads(line))), flush=True)


def _perform(request: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = os.memfd_create("log")
    children = []
    for rank in range(request["processes"]):
        if not (child := os.fork()):
            _train(request, rank, port, log)
        children.append(child)
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        left_s = began + request["kill_after_s"] - time.monotonic()
        if left_s <= 0 or signal.sigtimedwait({signal.SIGCHLD}, left_s) is None:
            for child in children:
                if child not in codes:
                    os.kill(child, signal.SIGKILL)
        for child in children:
            if child not in codes and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                codes[child] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(log, "rb") as file:
        file.seek(0)
        text = file.read().decode()
    return {
        "codes": [codes[child] for child in children],
        "seconds": time.monotonic() - began,
        "text": text,
    }


def _train(request: dict[str, Any], rank: int, port: int, log: int) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    if request["emulator"]:
        os.environ["STORAGE_EMULATOR_HOST"] = request["emulator"]
    if request["processes"] > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(request["processes"]),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    # SIGKILL takes nothing from what the kernel has already; only a power failure would.
    os.fsync = lambda fd: None
    main = importlib.import_module(request["program"]).main
    for place, value in request["constants"].items():
        module, _, name = place.partition(":")
        setattr(importlib.import_module(module), name, value)
    if request["kill_at_operation"]:
        _kill_at_operation(request["kill_at_operation"])
    if request["signal_at_call"] and rank == 0:
        _signal_at_call(*request["signal_at_call"])
    code = 70
    with contextlib.suppress(SystemExit):
        code = main(request["arguments"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _kill_at_operation(number: int) -> None:
    seen = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in _OPERATIONS:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


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
    _serve()
