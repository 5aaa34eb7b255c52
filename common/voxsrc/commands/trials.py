"""`voxsrc trials`: which list is it, and what is in it."""

import argparse
import json
from typing import Any

from voxsrc.command import add_debug_flag


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `trials` with its subcommand."""
    group = groups.add_parser("trials", help="inspect trial lists")
    commands = group.add_subparsers(dest="command", required=True, metavar="COMMAND")
    info = commands.add_parser("info", help="which list it is and what is in it", description=_info.__doc__)
    info.add_argument("trials", metavar="FILE", help="lines `1|0 path path`, or `path path` throughout")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(function=_info)
    add_debug_flag(info)


def _info(parsed: argparse.Namespace) -> None:
    """Recognises VoxCeleb1's official lists by their checksum, and counts what is in any list."""
    summary = summarise(parsed.trials)
    if parsed.json:
        print(json.dumps(summary, indent=1, ensure_ascii=False))
        return
    targets = summary["num_targets"]
    labels = "blind" if targets is None else f"{targets:,} target, {summary['num_nontargets']:,} non-target"
    speakers = summary["num_speakers"]
    rows = {
        "list": summary["description"],
        "caution": summary["caution"],
        "trials": f"{summary['num_trials']:,} ({labels})",
        "utterances": f"{summary['num_utterances']:,}",
        "speakers": f"{speakers:,}, by the paths" if speakers else "not told by the paths",
        "labels against paths": summary["num_contradictions"],
        "repeated": summary["num_duplicates"],
        "both ways round": summary["num_reversed"],
        "two labels": summary["num_conflicting"],
        "with itself": summary["num_self_trials"],
    }
    for name, text in rows.items():
        if text is not None:
            print(f"{name:>20}  {text}")


def summarise(uri: str) -> dict[str, Any]:
    """The figures that `--json` prints.

    `num_duplicates` counts trials whose ordered pair came before, `num_reversed` those whose pair came before
    the other way round, `num_conflicting` unordered pairs with both labels, `num_contradictions` labels that
    the speakers in the paths deny.

    Raises:
        CorpusError: If the list is malformed.
        StorageError: If it cannot be read.
    """
    from voxsrc.corpus import read_trials
    from voxsrc.errors import CorpusError
    from voxsrc.trial_lists import contradictions, recognise, speaker_pairs, speakers_from_paths

    trials = read_trials(uri)
    recognised = recognise(uri)
    try:
        speaker_of = speakers_from_paths(trials)
    except CorpusError:
        # Lists of other corpora name their files as they like; that is no fault of the list.
        speaker_of = {}
    pairs = list(zip(trials.enrollments, trials.tests, strict=True))
    distinct = set(pairs)
    labels = [None] * len(pairs) if trials.labels is None else trials.labels.tolist()
    labelled = {(*sorted(pair), label) for pair, label in zip(pairs, labels, strict=True)}
    unordered = {tuple(sorted(pair)) for pair in distinct}
    num_self = sum(first == second for first, second in pairs)
    num_targets = None if trials.labels is None else int(trials.labels.sum())
    wrong = contradictions(trials, speaker_pairs(trials, speaker_of)) if speaker_of else None
    return {
        "trials": uri,
        "name": recognised.name,
        "description": recognised.description,
        "caution": recognised.caution,
        "num_trials": len(trials),
        "num_targets": num_targets,
        "num_nontargets": None if num_targets is None else len(trials) - num_targets,
        "num_utterances": len(trials.utterance_ids()),
        "num_speakers": len(set(speaker_of.values())) or None,
        "num_contradictions": None if wrong is None or trials.labels is None else len(wrong),
        "num_duplicates": len(pairs) - len(distinct),
        "num_reversed": len(distinct) - len(unordered),
        "num_conflicting": len(labelled) - len(unordered),
        "num_self_trials": num_self,
    }
