"""`voxsrc fuse`: one score of the scores of several systems."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from voxsrc.command import add_debug_flag, warn

if TYPE_CHECKING:
    from voxsrc.corpus import TrialList
    from voxsrc.scoring import SystemScores


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `fuse`."""
    command = groups.add_parser(
        "fuse", help="one score of the scores of several systems", description=_fuse.__doc__
    )
    command.add_argument(
        "--system",
        action="append",
        required=True,
        metavar="NAME=DIR",
        help="output of an evaluation with --train-features; give two or more, of the same training set",
    )
    command.add_argument("--trials", required=True, metavar="FILE", help="the list that they all scored")
    command.add_argument(
        "--output", required=True, metavar="FILE", help="score file to write, of log-likelihood ratios"
    )
    command.add_argument(
        "--p-target",
        type=float,
        default=0.05,
        help="share of same-speaker trials to fit for (default: %(default)s)",
    )
    command.set_defaults(function=_fuse)
    add_debug_flag(command)


def _fuse(parsed: argparse.Namespace) -> None:
    """Fuses systems by logistic regression on the speakers that their training held out.

    The fused scores are calibrated: natural-log likelihood ratios. `voxsrc metrics` judges them, and `voxsrc
    submission write --calibrated` submits them.
    """
    from voxsrc import storage
    from voxsrc.corpus import read_trials
    from voxsrc.scores import SCORES_NAME, write_scores
    from voxsrc.scoring import fit_fusion, fuse

    systems = _systems(parsed.system)
    held_out = [_held_out_scores(name, folder) for name, folder in systems]
    fusion = fit_fusion(held_out, p_target=parsed.p_target)
    trials = read_trials(parsed.trials)
    scored = [_scores(name, storage.join(folder, SCORES_NAME), trials) for name, folder in systems]
    write_scores(parsed.output, trials, fuse(fusion, scored))
    weights = ", ".join(
        f"{name} {weight:.3g}" for name, weight in zip(fusion.inputs, fusion.weights, strict=True)
    )
    print(f"{parsed.output}: {len(trials):,} fused scores")
    print(f"fitted on {len(held_out[0].trials):,} trials of held-out speakers; weights: {weights}")
    if not fusion.well_ordered:
        warn("a system with a negative weight speaks against its own scores; leave it out")


def _systems(entries: Sequence[str]) -> list[tuple[str, str]]:
    from voxsrc.errors import ConfigError

    systems = []
    for entry in entries:
        name, equals, folder = entry.partition("=")
        if not (name and equals and folder):
            raise ConfigError(f"--system {entry!r}: expected NAME=DIR, such as ecapa=results/ecapa")
        systems.append((name, folder))
    if len(systems) < 2:
        raise ConfigError(f"--system: found {len(systems)}, expected two or more to fuse")
    return systems


def _held_out_scores(name: str, folder: str) -> "SystemScores":
    """A system's scores of the speakers that its training held out."""
    from voxsrc import storage
    from voxsrc.corpus import read_trials
    from voxsrc.errors import NotFoundError
    from voxsrc.scores import SCORES_NAME
    from voxsrc.scoring.fusion import HELD_OUT_SCORES_NAME, HELD_OUT_TRIALS_NAME

    try:
        trials = read_trials(storage.join(folder, HELD_OUT_TRIALS_NAME))
        return _scores(name, storage.join(folder, HELD_OUT_SCORES_NAME), trials)
    except NotFoundError as error:
        if not storage.exists(storage.join(folder, SCORES_NAME)):
            raise
        raise NotFoundError(
            f"system {name!r}: {folder} has no {HELD_OUT_TRIALS_NAME} with {HELD_OUT_SCORES_NAME}, which the "
            "fusion is fitted on; evaluate it again with --train-features, the set that its model was "
            "trained on, some speakers held out"
        ) from error


def _scores(name: str, uri: str, trials: "TrialList") -> "SystemScores":
    """The scores of a system, in the order of the trials."""
    from voxsrc.scores import matched, read_scores
    from voxsrc.scoring import SystemScores

    return SystemScores(name, trials, matched(read_scores(uri), trials).scores)
