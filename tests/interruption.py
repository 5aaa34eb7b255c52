"""Runs `feature-extractor` again and again and kills it by SIGKILL at a chosen instant."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from forked import Ended, ForkServer, Request, kill_at_operation, serve


class Extractions(ForkServer):
    """Use as a context manager."""

    def __init__(self) -> None:
        super().__init__(__file__)

    def run(
        self,
        arguments: Sequence[str],
        *,
        kill_after_s: float | None = None,
        kill_at_operation: int = 0,
        below: Path = Path("/"),
    ) -> Ended:
        """Runs once.

        Args:
            arguments: Of the command.
            kill_after_s: Seconds until the kill; None lets it run to its end.
            kill_at_operation: 1 kills before the first operation on files below `below`, and so on.
            below: See `kill_at_operation`.
        """
        request = {
            "arguments": list(arguments),
            "kill_at_operation": kill_at_operation,
            "below": str(below),
        }
        return self.fork(request, kill_after_s=kill_after_s)


def _extract(request: Request, rank: int) -> int:
    from feature_extractor.cli import main

    if request["kill_at_operation"]:
        kill_at_operation(request["kill_at_operation"], request["below"])
    return main(request["arguments"])


if __name__ == "__main__":
    for module in ("feature_extractor.extraction", "feature_extractor.finishing"):
        importlib.import_module(module)
    serve(_extract)
