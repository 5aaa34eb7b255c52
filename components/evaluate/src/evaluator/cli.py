"""The command `evaluator`: a model, features and trials in; scores, metrics and a report out."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import voxsrc
from evaluator.options import SCORINGS, EvaluationOptions
from voxsrc.command import (
    add_debug_flag,
    configure_logging,
    run_terminable_command,
    without_empty_options,
)


def build_parser() -> argparse.ArgumentParser:
    """The command line, with its help."""
    parser = argparse.ArgumentParser(
        prog="evaluator",
        description="Scores trials with a trained model and reports EER, minDCF and more as the VoxSRC "
        "challenge defines them, with 95 % intervals over speakers. Embeddings are kept as they are made: "
        "killed at any instant, the same command continues. A list without labels gives scores and a "
        "submission.",
        epilog="An option with an empty value counts as not given.",
    )
    parser.add_argument("--version", action="version", version=f"voxsrc {voxsrc.__version__}")
    _add_inputs(parser)
    _add_method(parser)
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="another system's scores of the same trials (lines `score path path`), to report beside and to "
        "test against, by its file's name if none is given; may be repeated",
    )
    parser.add_argument(
        "--metadata",
        metavar="URI",
        help="CSV or TSV with a header; its first column has utterance ids or speakers, and each other one "
        "becomes a condition of the report, as in VoxCeleb's vox1_meta.csv",
    )
    parser.add_argument(
        "--title", default="Speaker verification", metavar="TEXT", help="heading of the report"
    )
    parser.add_argument(
        "--num-resamples", type=int, default=1000, metavar="N", help="for the intervals (default: 1000)"
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda, cuda:N")
    parser.add_argument("--executor-input", metavar="JSON", help=argparse.SUPPRESS)
    parser.add_argument("--report-path", metavar="FILE", help=argparse.SUPPRESS)
    parser.set_defaults(function=_evaluate)
    add_debug_flag(parser)
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="URI", help="the model's folder, local or gs://")
    parser.add_argument(
        "--features", metavar="URI", help="feature set with the trials' utterances, made as the model's was"
    )
    parser.add_argument(
        "--audio",
        action="append",
        default=[],
        metavar="URI",
        help="folder, tar or zip with the recordings: players in the report; without --features also what is "
        "embedded. For several repeat it, or divide them by semicolons",
    )
    parser.add_argument(
        "--trials", required=True, metavar="URI", help="lines `1|0 path path`, or `path path` (blind)"
    )
    parser.add_argument(
        "--output", required=True, metavar="URI", help="folder for scores.txt, metrics.json, report.html"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what OUTPUT has of another model, of other trials or of another way of scoring",
    )
    parser.add_argument(
        "--cache", metavar="URI", help="folder in which embeddings are kept (default: OUTPUT/embeddings)"
    )


def _add_method(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scoring")
    group.add_argument(
        "--scoring",
        choices=SCORINGS,
        default="cosine",
        help="cosine of whole utterances (default); mean-distance: ten 4-second crops, as voxceleb_trainer; "
        "as-norm: cosine, normalised by a cohort; plda. The last two need --train-features",
    )
    group.add_argument(
        "--train-features",
        metavar="URI",
        help="feature set that the model was trained on: its speakers are the cohort of as-norm and train "
        "plda, and those that training held out calibrate the scores",
    )
    group.add_argument(
        "--top-cohort",
        type=int,
        default=300,
        metavar="N",
        help="as-norm: speakers of the cohort that count, the nearest (default: 300, or all if there are "
        "fewer)",
    )
    group.add_argument(
        "--cohort-utterances",
        type=int,
        default=20,
        metavar="N",
        help="as-norm and plda: utterances of each training speaker at most (default: 20)",
    )
    group.add_argument(
        "--quality",
        action="store_true",
        help="let the calibration see the utterances' durations and magnitudes, too; needs --train-features",
    )
    group.add_argument(
        "--p-target",
        type=float,
        default=0.05,
        metavar="P",
        help="share of same-speaker trials that detection costs assume (default: 0.05, the challenge's)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code, which is 143 after SIGTERM."""
    parsed = build_parser().parse_args(
        without_empty_options(sys.argv[1:] if arguments is None else arguments)
    )
    configure_logging()
    return run_terminable_command(parsed.function, parsed)


def _evaluate(parsed: argparse.Namespace) -> None:
    from evaluator.evaluation import evaluate
    from voxsrc.sources import audio_uris

    fields: dict[str, Any] = {
        name: value for name, value in vars(parsed).items() if name not in ("function", "debug")
    }
    fields["compare"] = tuple(parsed.compare)
    fields["audio"] = audio_uris(parsed.audio) if parsed.audio else ()
    evaluate(EvaluationOptions(**fields))


if __name__ == "__main__":
    sys.exit(main())
