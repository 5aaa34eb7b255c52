"""`voxsrc submission`: writes and checks what VoxSRC's server takes."""

import argparse

from voxsrc.command import add_debug_flag

_INVALID = 1


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `submission` with its subcommands."""
    group = groups.add_parser("submission", help="write and check VoxSRC submissions")
    commands = group.add_subparsers(dest="command", required=True, metavar="COMMAND")
    write = commands.add_parser("write", help="make a submission of a score file", description=_write.__doc__)
    write.add_argument("--scores", required=True, metavar="FILE", help="lines `score path path`")
    write.add_argument(
        "--trials", required=True, metavar="FILE", help="the challenge's list, lines `path path`"
    )
    write.add_argument(
        "--output", required=True, metavar="FILE", help="FILE.zip, or another name for plain text"
    )
    write.add_argument(
        "--calibrated",
        action="store_true",
        help="the scores are natural-log likelihood ratios: write probabilities",
    )
    write.add_argument(
        "--prior",
        type=float,
        default=0.05,
        help="with --calibrated, the prior probability of the same speaker (default: %(default)s)",
    )
    write.add_argument(
        "--member", default="scores.txt", help="name of the file in the zip (default: %(default)s)"
    )
    write.set_defaults(function=_write)
    check = commands.add_parser("check", help="check a submission", description=_check.__doc__)
    check.add_argument("submission", metavar="FILE", help="the zip or text file")
    check.add_argument("--trials", required=True, metavar="FILE", help="the challenge's list")
    check.set_defaults(function=_check)
    for command in (write, check):
        add_debug_flag(command)


def _write(parsed: argparse.Namespace) -> None:
    """Writes lines `score path path` in the order of the trials, with scores in [0, 1].

    Order and ties of the scores are kept exactly, so EER and minDCF are what they were.
    """
    from voxsrc.corpus import read_trials
    from voxsrc.scores import matched, read_scores
    from voxsrc.submission import write_submission

    trials = read_trials(parsed.trials)
    found = matched(read_scores(parsed.scores), trials)
    written = write_submission(
        parsed.output,
        trials,
        found.scores,
        calibrated=parsed.calibrated,
        prior=parsed.prior,
        member=parsed.member,
    )
    inside = f", as {written.member}" if written.member else ""
    print(f"{written.uri}: {written.num_lines:,} lines{inside}, {written.num_bytes:,} bytes")
    print(f"scores: {written.how}")
    if found.num_swapped or found.num_extra:
        print(
            f"{found.num_swapped:,} scores were of the pair the other way round, "
            f"{found.num_extra:,} of no trial"
        )


def _check(parsed: argparse.Namespace) -> int:
    """Checks a submission against its trial list: form, range, pairs and order of the lines.

    Exits with 1, and names the first offending lines, if it is not valid.
    """
    from voxsrc.submission import validate_submission

    report = validate_submission(parsed.submission, parsed.trials)
    for note in report.notes:
        print(f"note: {note}")
    if report.valid:
        print(f"{report.uri}: valid, {report.num_lines:,} lines for {report.num_trials:,} trials")
        return 0
    for problem in report.problems:
        print(problem)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in report.counts.items())
    print(f"{report.uri}: not valid, {counts} ({report.num_lines:,} lines, {report.num_trials:,} trials)")
    return _INVALID
