"""Draws that are a pure function of (seed, purpose, counter): no generator is kept, so none is restored.

Only the raw words of Philox are used: NumPy keeps those the same in all its versions, which it does not
promise of the methods of `Generator`.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray


class RandomStream:
    """Random numbers for one purpose; `counter` (a step, an epoch) selects an independent block of them.

    Two streams are independent if their seed or purpose differs: both are hashed into the key of
    Philox-4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). The counter is the
    third of its four counter words, so that blocks never meet.

    Args:
        seed: Any integer.
        purpose: A name such as `crop_starts`.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
        self._key = np.frombuffer(digest[:16], "<u8").astype(np.uint64)

    def words(self, counter: int, count: int) -> NDArray[np.uint64]:
        """The first `count` words of block `counter`, uniform in [0, 2^64)."""
        if counter < 0:
            raise ValueError(f"counter {counter}; expected 0 or more")
        philox = np.random.Philox(key=self._key, counter=np.array([0, 0, counter, 0], np.uint64))
        words: NDArray[np.uint64] = philox.random_raw(count)
        return words

    def uniforms(self, counter: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Block `counter` as numbers uniform in [0, 1), row after row."""
        words = self.words(counter, int(np.prod(shape)))
        return ((words >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)

    def normals(self, counter: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Block `counter` as numbers of mean 0 and variance 1, normally distributed (Box-Muller)."""
        count = int(np.prod(shape))
        uniforms = self.uniforms(counter, (2, (count + 1) // 2))
        radius = np.sqrt(-2.0 * np.log1p(-uniforms[0]))
        angle = 2.0 * np.pi * uniforms[1]
        values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        return values[:count].astype(np.float32).reshape(shape)

    def permutation(self, counter: int, count: int) -> NDArray[np.int64]:
        """A permutation of range(count)."""
        return np.argsort(self.words(counter, count), kind="stable")


def integers_below(limits: NDArray[np.int64] | int, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    """Uniform integers of [0, limit) made of uniform numbers of [0, 1); limits up to 2^52."""
    return np.floor(uniforms * limits).astype(np.int64)


def between(interval: tuple[float, float], uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Uniform numbers of the interval made of uniform numbers of [0, 1)."""
    return interval[0] + (interval[1] - interval[0]) * uniforms
