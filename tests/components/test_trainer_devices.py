"""What the trainer sets up on its device."""

import ctypes
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from trainer.devices import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def step():
    # Above 32 MB glibc always gives back what is freed, whatever else lies on the heap.
    kept = [torch.zeros(40_000_000, dtype=torch.uint8) for _ in range(3)]
    while kept:
        kept.pop()

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_memory_that_a_step_frees_is_there_for_the_next() -> None:
    def page_faults(how: str) -> int:
        command = [sys.executable, "-c", STEPS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert 2 * page_faults("keep") < page_faults("as it is")
