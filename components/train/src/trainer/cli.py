"""The command `trainer`: a feature set in, a speaker-embedding model out."""

import argparse
import logging
import os
import socket
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import voxsrc
from voxsrc import storage
from voxsrc.command import EXIT_FAILED, add_debug_flag, configure_logging, run_command
from voxsrc.errors import ConfigError
from voxsrc.recipes import shipped_recipes

if TYPE_CHECKING:
    import torch

    from trainer.distributed import World
    from trainer.recipe import Recipe

EXPORTS_FOLDER = "exported"

_log = logging.getLogger("trainer")


def build_parser() -> argparse.ArgumentParser:
    """The command line, with its help."""
    parser = argparse.ArgumentParser(
        prog="trainer",
        description="Trains a speaker-embedding model on a feature set. Killed at any instant, the same "
        "command continues from the last checkpoint and ends with the same weights, bit for bit. For several "
        "processes, run it by torchrun: torchrun --nproc-per-node 2 -m trainer ...",
    )
    parser.add_argument("--version", action="version", version=f"voxsrc {voxsrc.__version__}")
    parser.add_argument(
        "--recipe",
        required=True,
        metavar="NAME|FILE",
        help=f"{', '.join(shipped_recipes())}, or a YAML file",
    )
    parser.add_argument(
        "--features", required=True, metavar="URI", help="feature set to train on, local or gs://"
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="URI",
        help="folder of the run: checkpoints, history, model; local or gs://",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a key of the recipe, such as num_steps=1000 or augment.babble.probability=0.2; may "
        "be repeated",
    )
    parser.add_argument(
        "--resume",
        choices=("auto", "must", "never"),
        default="auto",
        help="auto (default): continue what --output holds, else begin; must: fail if it holds nothing; "
        "never: fail if it holds something",
    )
    parser.add_argument(
        "--export",
        choices=("newest", "best"),
        help="train nothing: write the model of the newest or best checkpoint of --output, which may be of a "
        "training that is still running, to --output/exported/step-N, and say so",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check recipe and features, say what would be done"
    )
    parser.add_argument("--executor-input", metavar="JSON", help=argparse.SUPPRESS)
    parser.set_defaults(function=_train)
    add_debug_flag(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parsed = build_parser().parse_args(arguments)
    configure_logging()
    # Ours only: libraries tell their own insides at this level.
    logging.getLogger("trainer").setLevel(logging.INFO)
    return run_command(parsed.function, parsed)


def _train(parsed: argparse.Namespace) -> int:
    from trainer.devices import prepare_device
    from trainer.distributed import joined_world
    from trainer.errors import PreemptedError
    from trainer.recipe import Recipe
    from voxsrc.device import chosen_device

    _check_output(parsed.output)
    recipe = Recipe.load(parsed.recipe, parsed.set)
    device = chosen_device(recipe.device)
    with joined_world(device.type) as world:
        device = prepare_device(device, recipe, world)
        try:
            _train_in_world(parsed, recipe, device, world)
        except PreemptedError:
            if world.is_first:
                raise
            return EXIT_FAILED
    return 0


def _train_in_world(
    parsed: argparse.Namespace, recipe: "Recipe", device: "torch.device", world: "World"
) -> None:
    from trainer.data import DeviceFeatures
    from trainer.devices import check_precision
    from trainer.distributed import leave_world
    from trainer.finishing import finished_model, renew_onnx, report, write_outputs
    from trainer.resuming import MODEL_FOLDER, load_for_export
    from trainer.run import train
    from trainer.training import Training
    from voxsrc.models.stored import DESCRIPTION_NAME, ONNX_NAME

    say = print if world.is_first else _say_nothing
    model_uri = storage.join(parsed.output, MODEL_FOLDER)
    # Before the features, whose reading takes minutes; a model that is finished needs no such device.
    if not parsed.export and not storage.exists(storage.join(model_uri, DESCRIPTION_NAME)):
        try:
            check_precision(device, recipe)
        except ConfigError as error:
            if not parsed.dry_run:
                raise
            if world.is_first:
                _log.warning("%s", error)
    features = DeviceFeatures.open(parsed.features, device, recipe.data, processes_on_node=world.size)
    if features.manifest.spec.num_mels != recipe.encoder.num_mels:
        raise ConfigError(
            f"{parsed.features} has {features.manifest.spec.num_mels} mel bands, the recipe's "
            f"encoder.num_mels is {recipe.encoder.num_mels}; extract features with as many, "
            "or --set encoder.num_mels"
        )
    training = Training(recipe, features, parsed.features, parsed.output, world)
    say(features.summary)
    say(training.describe())
    if parsed.dry_run:
        training.open_inputs()
        say("dry run: nothing was written")
        return
    if parsed.export:
        if world.size > 1:
            raise ConfigError("--export is for one process: start it without torchrun and --num-processes")
        weights_step = load_for_export(training, parsed.export)
        exported_uri = storage.join(parsed.output, EXPORTS_FOLDER, f"step-{weights_step:09d}")
        write_outputs(exported_uri, training, weights_step=weights_step)
        say(f"model after step {weights_step}: {exported_uri}")
        return
    _check_resume(parsed)
    if finished_model(model_uri, training):
        if world.is_first and renew_onnx(model_uri, recipe):
            say(f"{model_uri} is finished already; {ONNX_NAME} was written")
        else:
            say(f"{model_uri} is finished already; nothing to do")
    else:
        training.open_inputs()
        weights_step = train(training, _run_id(), show_progress=True)
        leave_world(world)
        if not world.is_first:
            return
        write_outputs(model_uri, training, weights_step=weights_step)
        say(f"model: {model_uri}")
    if world.is_first:
        report(parsed.executor_input, model_uri)


def _check_output(output_uri: str) -> None:
    """Raises ConfigError on what can be no folder of a training, before features are read."""
    from voxsrc.feature_set.manifest import MANIFEST_NAME

    if not storage.is_remote(output_uri) and Path(storage.local_path(output_uri)).is_file():
        raise ConfigError(f"--output {output_uri} is a file; expected a folder, which need not exist")
    if storage.exists(storage.join(output_uri, MANIFEST_NAME)):
        raise ConfigError(f"--output {output_uri} is a feature set; choose another folder")


def _check_resume(parsed: argparse.Namespace) -> None:
    from trainer.checkpoint import CheckpointStore

    has_checkpoints = bool(CheckpointStore(parsed.output).entries)
    if parsed.resume == "must" and not has_checkpoints:
        raise ConfigError(f"--resume must: {parsed.output} holds no checkpoint to continue from")
    if parsed.resume == "never" and has_checkpoints:
        raise ConfigError(f"--resume never: {parsed.output} holds checkpoints; choose another --output")


def _run_id() -> str:
    """Tells this run from others on the same output: the pod's name in a cluster."""
    return os.environ.get("KFP_POD_NAME") or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


def _say_nothing(text: str) -> None:
    """What the ranks other than the first say."""


if __name__ == "__main__":
    sys.exit(main())
