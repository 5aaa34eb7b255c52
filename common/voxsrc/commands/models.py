"""`voxsrc models`: the models that recipes can name."""

import argparse
import json
from typing import Any

from voxsrc.command import add_debug_flag


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `models`."""
    command = groups.add_parser(
        "models", help="the models that recipes can name", description=_models.__doc__
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(function=_models)
    add_debug_flag(command)


def _models(parsed: argparse.Namespace) -> None:
    """Lists the models: size of input and embedding, parameters, and cost of a 2-second crop."""
    models = summarise()
    if parsed.json:
        print(json.dumps(models, indent=1))
        return
    rows = [("name", "mels", "embedding", "parameters", "GFLOP", "with backward", "source")]
    rows += [
        (
            model["name"],
            str(model["num_mels"]),
            str(model["embedding_dim"]),
            f"{model['num_parameters']:,}",
            f"{model['forward_gflop']:.2f}",
            f"{model['training_gflop']:.2f}",
            model["source"],
        )
        for model in models
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *figures, source in rows:
        aligned = [figure.rjust(width) for figure, width in zip(figures, widths[1:-1], strict=True)]
        print("  ".join([name.ljust(widths[0]), *aligned, source]))
    print("\nGFLOP for a crop of 200 frames: forward, and forward with backward.")


def summarise() -> list[dict[str, Any]]:
    """The figures that `--json` prints, one mapping for each model."""
    import dataclasses

    from voxsrc.models import MODELS
    from voxsrc.models.complexity import measure

    return [
        {
            "name": name,
            "num_mels": entry.num_mels,
            "embedding_dim": entry.embedding_dim,
            **dataclasses.asdict(measure(name)),
            "source": entry.source,
        }
        for name, entry in MODELS.items()
    ]
