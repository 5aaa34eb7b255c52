"""One side of a comparison as a process of its own, which works whenever it is told to.

So each side has its cores, threads and memory to itself, and a peer's modules do not meet ours. The one
argument is a JSON object; each line of standard input is the number of repetitions of a turn, answered by a
line of JSON. Imports nothing heavy before the cores are chosen: libraries count them when they are imported.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO


class Turns:
    """What the parent asks for, in order; the body of a loop over it is what is timed.

    Args:
        answers: Where the figures of each turn go.
        synchronise: Waits for the device.

    Attributes:
        figures: Further figures of the turn under way, for the body to fill.
    """

    def __init__(self, answers: TextIO, synchronise: Callable[[], None] = lambda: None) -> None:
        self._answers = answers
        self._synchronise = synchronise
        self.figures: dict[str, Any] = {}

    def __iter__(self) -> Iterator[int]:
        """The number of repetitions of each turn."""
        for line in sys.stdin:
            self.figures = {}
            cpu, wall = time.process_time(), time.perf_counter()
            yield int(line)
            self._synchronise()
            spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
            print(json.dumps({**spent, **self.figures}), file=self._answers, flush=True)


def main() -> None:
    """Does what the argument says until standard input ends."""
    what: dict[str, Any] = json.loads(sys.argv[1])
    os.sched_setaffinity(0, what["cores"])
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(len(what["cores"]))
    on_gpu = what.get("device", "cpu") != "cpu"
    turns = Turns(answers, torch.cuda.synchronize if on_gpu else lambda: None)
    if what["do"] in ("peer_crops", "peer_steps"):
        import training_peer

        (training_peer.crops if what["do"] == "peer_crops" else training_peer.steps)(what, turns)
    else:
        import training_ours

        (training_ours.crops if what["do"] == "our_crops" else training_ours.steps)(what, turns)


if __name__ == "__main__":
    main()
