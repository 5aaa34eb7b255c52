"""`voxsrc verify`: is it the same speaker in two recordings."""

import argparse
import dataclasses
import json
import math
from typing import TYPE_CHECKING

from voxsrc.command import add_debug_flag, warn

if TYPE_CHECKING:
    from voxsrc.scoring.calibration import LogisticCalibration
    from voxsrc.verification import Verification


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `verify`."""
    command = groups.add_parser(
        "verify", help="is it the same speaker in two recordings", description=_verify.__doc__
    )
    command.add_argument("first", metavar="A", help="a recording, local or gs://")
    command.add_argument("second", metavar="B", help="another")
    command.add_argument("--model", required=True, metavar="DIR", help="a trained model's folder")
    add_decision_options(command, "probability of the same speaker before listening (default: 0.5)")
    command.add_argument("--c-miss", type=float, default=1.0, help="cost of a false rejection (default: 1)")
    command.add_argument("--c-fa", type=float, default=1.0, help="cost of a false acceptance (default: 1)")
    command.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: cpu)")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(function=_verify)
    add_debug_flag(command)


def add_decision_options(command: argparse.ArgumentParser, prior_help: str) -> None:
    """Adds `--prior` and `--threshold`."""
    command.add_argument("--prior", type=float, default=0.5, metavar="P", help=prior_help)
    command.add_argument(
        "--threshold", type=float, metavar="S", help="least score to accept (default: from the calibration)"
    )


def check_decision_options(parsed: argparse.Namespace) -> None:
    """Raises ConfigError, naming the flag, on a value out of range, before a model is loaded."""
    from voxsrc.errors import ConfigError

    if not 0 < parsed.prior < 1:
        raise ConfigError(f"--prior is {parsed.prior:g}; expected a probability between 0 and 1")
    if parsed.threshold is not None and not -1 <= parsed.threshold <= 1:
        raise ConfigError(f"--threshold is {parsed.threshold:g}; expected a cosine from -1 to 1")


def calibrated_on(calibration: "LogisticCalibration") -> str:
    """What the calibration was fitted on, in words."""
    facts = calibration.fitted_on
    trials = f"{facts['trials']:,} trials" if "trials" in facts else "trials"
    speakers = f"{facts['speakers']:,} " if "speakers" in facts else ""
    return f"{trials} of {speakers}held-out training speakers"


def unreachable(least: float, given: str) -> str:
    """In words, that no cosine or every one reaches a threshold; empty if some do.

    Args:
        least: Score from which to accept.
        given: What it follows from, in words.
    """
    if least > 1:
        return f"with {given} nothing can be accepted, as no cosine reaches {least:.4f}"
    if least < -1:
        return f"with {given} everything is accepted, as every cosine is above {least:.4f}"
    return ""


NO_CALIBRATION = (
    "This model has no calibration, so nothing says which score is high enough: give --threshold S, or train "
    "with held-out speakers (validation.fraction above 0), which calibrates the model."
)


def _verify(parsed: argparse.Namespace) -> None:
    """Compares the speakers of two recordings: prints score, probability and decision, and why."""
    from voxsrc.errors import ConfigError

    check_decision_options(parsed)
    for flag, cost in (("--c-miss", parsed.c_miss), ("--c-fa", parsed.c_fa)):
        if not 0 < cost < math.inf:
            raise ConfigError(f"{flag} is {cost:g}; expected a positive cost")
    from voxsrc.verification import Verifier

    warnings: list[str] = []
    verifier = Verifier.load(parsed.model, parsed.device, on_warning=warnings.append)
    answer = verifier.compare(
        parsed.first,
        parsed.second,
        prior=parsed.prior,
        c_miss=parsed.c_miss,
        c_fa=parsed.c_fa,
        min_score=parsed.threshold,
    )
    for warning in warnings:
        warn(warning)
    if parsed.json:
        fitted_on = dict(verifier.calibration.fitted_on) if verifier.calibration else None
        fields = {
            **dataclasses.asdict(answer),
            "prior": parsed.prior,
            "calibration": fitted_on,
            "warnings": warnings,
        }
        print(json.dumps(fields, indent=1, ensure_ascii=False))
        return
    print(f"{'score':>12}  {answer.score:.4f}  cosine of the embeddings, -1 to 1")
    if answer.probability is not None:
        print(
            f"{'probability':>12}  {100 * answer.probability:.2f} %  that it is the same speaker, if it was "
            f"{100 * parsed.prior:g} % before listening"
        )
    print(f"{'decision':>12}  {_decision(answer)}")
    print(_explanation(parsed, answer, verifier.calibration))


def _decision(answer: "Verification") -> str:
    if answer.threshold is None:
        return "none"
    said = "same speaker" if answer.accepted else "different speakers"
    relation = "at least" if answer.accepted else "below"
    return f"{said}: the score is {relation} the threshold, {answer.threshold:.4f}"


def _explanation(
    parsed: argparse.Namespace, answer: "Verification", calibration: "LogisticCalibration | None"
) -> str:
    from voxsrc.scoring.calibration import threshold

    if parsed.threshold is not None:
        return "The threshold is the one that was given" + (
            "; without --threshold it comes from the model's calibration." if calibration else "."
        )
    if calibration is None or answer.threshold is None:
        return NO_CALIBRATION
    costs = (
        "equal costs"
        if parsed.c_miss == parsed.c_fa
        else f"costs {parsed.c_miss:g} (miss) and {parsed.c_fa:g}"
    )
    llr = threshold(parsed.prior, parsed.c_miss, parsed.c_fa)
    hint = unreachable(answer.threshold, f"prior {parsed.prior:g} and {costs}")
    hint = f"{hint[0].upper()}{hint[1:]}.\n" if hint else ""
    return (
        f"The threshold is Bayes' for prior {parsed.prior:g} and {costs}: where the log-likelihood ratio is "
        f"{llr:.2f}, as calibrated on {calibrated_on(calibration)}.\n"
        f"{hint}Change it by --prior P, how common the same speaker is where you use it, --c-miss and "
        "--c-fa, or --threshold S."
    )
