"""What every row of the evaluation benchmark is given, and how much to measure."""

from dataclasses import dataclass
from pathlib import Path

from machine import Machine


@dataclass(frozen=True)
class EvaluationEffort:
    """How much is measured. The defaults are VoxCeleb1's sizes.

    Attributes:
        num_pairs: Pairs of runs of a slow comparison (seconds each).
        num_fast_pairs: Pairs of runs of a fast one.
        num_trials: Trials whose error rates are computed.
        loop_trials: Part of them that a plain loop works through.
        small_trials: Trials of the bootstrap: VoxCeleb1-O's.
        small_speakers: Their speakers.
        num_resamples: Resamples of the bootstrap.
        fresh_resamples: Part of them for which the rates are computed afresh.
        num_utterances: Utterances of VoxCeleb1-E and H together, to score.
        embedding_size: Their embeddings' length.
        num_cohort_speakers: Speakers of the cohort: VoxCeleb2's.
        cohort_top: Closest ones that AS-norm takes.
        scored_trials: Trials that are scored: VoxCeleb1-E's.
    """

    num_pairs: int = 3
    num_fast_pairs: int = 7
    num_trials: int = 580_000
    loop_trials: int = 58_000
    small_trials: int = 37_611
    small_speakers: int = 40
    num_resamples: int = 1_000
    fresh_resamples: int = 50
    num_utterances: int = 145_160
    embedding_size: int = 256
    num_cohort_speakers: int = 5_994
    cohort_top: int = 300
    scored_trials: int = 579_818


QUICK = EvaluationEffort(
    num_pairs=1,
    num_fast_pairs=1,
    num_trials=4_000,
    loop_trials=2_000,
    small_trials=1_000,
    num_resamples=20,
    fresh_resamples=5,
    num_utterances=400,
    embedding_size=16,
    num_cohort_speakers=60,
    cohort_top=10,
    scored_trials=1_000,
)


@dataclass(frozen=True)
class EvaluationBench:
    """What every row is given.

    Attributes:
        machine: Where it runs.
        scratch: An empty folder, deleted at the end.
        effort: How much to do.
    """

    machine: Machine
    scratch: Path
    effort: EvaluationEffort
