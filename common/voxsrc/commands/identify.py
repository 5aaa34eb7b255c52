"""`voxsrc identify`: who of the enrolled speakers is it, or none of them."""

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from voxsrc.command import EXIT_FAILED, add_debug_flag, warn
from voxsrc.commands.verify import (
    NO_CALIBRATION,
    add_decision_options,
    calibrated_on,
    check_decision_options,
    unreachable,
)

if TYPE_CHECKING:
    from voxsrc.identification import Enrollment, Identification
    from voxsrc.scoring.calibration import LogisticCalibration
    from voxsrc.verification import Verifier

_NONE = "none of these"


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `identify`."""
    command = groups.add_parser(
        "identify", help="who of the enrolled speakers is it", description=_identify.__doc__
    )
    command.add_argument("probes", nargs="+", metavar="PROBE", help="a recording, local or gs://")
    command.add_argument(
        "--enrolled",
        required=True,
        metavar="DIR",
        help="known speakers: a folder, tar or zip of files speaker/[session/]file, local or gs://",
    )
    command.add_argument("--model", required=True, metavar="DIR", help="a trained model's folder")
    command.add_argument("--top", type=int, default=5, metavar="N", help="candidates to show (default: 5)")
    add_decision_options(
        command, "probability that a probe's speaker is enrolled at all, before listening (default: 0.5)"
    )
    command.add_argument("--cache", metavar="DIR", help="folder that keeps embeddings for other runs")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(function=_identify)
    add_debug_flag(command)


def _identify(parsed: argparse.Namespace) -> int:
    """Compares recordings with enrolled speakers: names each one's speaker, or none of these.

    Recordings that cannot be used are reported beside the answers for the others; the exit code is then 1.
    """
    from voxsrc.errors import ConfigError

    if parsed.top < 1:
        raise ConfigError(f"--top is {parsed.top}; expected at least 1")
    check_decision_options(parsed)
    from voxsrc.verification import Verifier

    warnings: list[str] = []
    verifier = Verifier.load(parsed.model, parsed.device, cache_uri=parsed.cache, on_warning=warnings.append)
    enrolled = verifier.enroll(parsed.enrolled)
    found = [(probe, _answer(parsed, verifier, enrolled, probe)) for probe in parsed.probes]
    problems = [answer for _, answer in found if isinstance(answer, str)]
    for warning in warnings:
        warn(warning)
    if parsed.json:
        fields = {
            "probes": [
                {"probe": probe, "error": one}
                if isinstance(one, str)
                else {"probe": probe, "error": None, **dataclasses.asdict(one)}
                for probe, one in found
            ],
            "num_speakers": len(enrolled.speaker_ids),
            "num_utterances": sum(enrolled.num_utterances),
            "unusable": enrolled.unusable,
            "prior": parsed.prior,
            "warnings": warnings,
        }
        print(json.dumps(fields, indent=1, ensure_ascii=False))
    else:
        _print_all(parsed, found, enrolled, verifier.calibration)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return EXIT_FAILED if problems else 0


def _answer(
    parsed: argparse.Namespace, verifier: "Verifier", enrolled: "Enrollment", probe: str
) -> "Identification | str":
    """Who speaks in a recording, or why it cannot be used."""
    from voxsrc.errors import StorageError
    from voxsrc.verification import VerificationError

    try:
        return verifier.identify(
            probe, enrolled, top=parsed.top, prior=parsed.prior, min_score=parsed.threshold
        )
    except (VerificationError, StorageError) as error:
        return str(error)


def _print_all(
    parsed: argparse.Namespace,
    found: "list[tuple[str, Identification | str]]",
    enrolled: "Enrollment",
    calibration: "LogisticCalibration | None",
) -> None:
    width = max(len(name) for name in (*enrolled.speaker_ids, _NONE))
    answers = []
    for probe, one in found:
        if isinstance(one, str):
            print(f"{probe}: cannot be used")
        else:
            _print_one(probe, one, width)
            answers.append(one)
    if answers:
        num_speakers = len(enrolled.speaker_ids)
        print(f"\n{_explanation(parsed, answers[0].threshold, num_speakers, calibration)}")


def _print_one(probe: str, found: "Identification", width: int) -> None:
    decision = "no decision" if found.threshold is None else found.speaker_id or _NONE
    print(f"{probe}: {decision}")
    rows = [
        (candidate.speaker_id, f"{candidate.score:.4f}", candidate.probability)
        for candidate in found.candidates
    ]
    if found.probability_of_none is not None:
        rows.append((_NONE, "", found.probability_of_none))
    for name, score, probability in rows:
        shown = "" if probability is None else f"  {100 * probability:6.2f} %"
        print(f"  {name:<{width}}  {score:>7}{shown}")


def _explanation(
    parsed: argparse.Namespace,
    least: float | None,
    num_speakers: int,
    calibration: "LogisticCalibration | None",
) -> str:
    what = "A score is the mean cosine with a speaker's recordings"
    if parsed.threshold is not None:
        return f"{what}; the best is accepted from {parsed.threshold:g}, as given."
    if calibration is None or least is None:
        return f"{what}. {NO_CALIBRATION}"
    accepted = (
        unreachable(least, f"prior {parsed.prior:g} and {num_speakers} enrolled")
        or f"the best is accepted from {least:.4f}"
    )
    return (
        f"{what}; {accepted}: Bayes' threshold if the speaker is enrolled with "
        f"probability {parsed.prior:g} and each of {num_speakers} is as likely, calibrated on "
        f"{calibrated_on(calibration)}.\nChange it by --prior P or --threshold S."
    )
