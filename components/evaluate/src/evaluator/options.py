"""What an evaluation is asked to do."""

from dataclasses import dataclass, field
from typing import Literal

from voxsrc.errors import ConfigError

ScoringName = Literal["cosine", "mean-distance", "as-norm", "plda"]
SCORINGS: tuple[ScoringName, ...] = ("cosine", "mean-distance", "as-norm", "plda")
# They are made of training speakers.
TRAINED_SCORINGS = ("as-norm", "plda")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The flags of `evaluator`; None where one is not given.

    Attributes:
        model: Folder of the model.
        trials: Trial list.
        output: Folder that everything is written to.
        features: Feature set with the trials' utterances.
        audio: Folders and archives of their recordings; without `features` these are embedded.
        overwrite: Whether the results of another evaluation in `output` may be replaced.
        cache: Folder of kept embeddings; None is `embeddings` in `output`.
        scoring: How trials are scored.
        train_features: The set that the model was trained on.
        top_cohort: AS-norm's nearest cohort speakers.
        cohort_utterances: Most utterances of a training speaker.
        quality: Whether durations and magnitudes enter the calibration.
        p_target: Prior of the detection costs.
        compare: Other systems' scores, each `NAME=URI` or `URI`.
        metadata: Table about utterances or speakers.
        title: Heading of the report.
        num_resamples: Of the speakers, for the intervals.
        device: Where the network runs.
        executor_input: Kubeflow's.
        report_path: File to which Kubeflow wants the report written, too.
    """

    model: str
    trials: str
    output: str
    features: str | None = None
    audio: tuple[str, ...] = field(default=())
    overwrite: bool = False
    cache: str | None = None
    scoring: ScoringName = "cosine"
    train_features: str | None = None
    top_cohort: int = 300
    cohort_utterances: int = 20
    quality: bool = False
    p_target: float = 0.05
    compare: tuple[str, ...] = field(default=())
    metadata: str | None = None
    title: str = "Speaker verification"
    num_resamples: int = 1000
    device: str = "auto"
    executor_input: str | None = None
    report_path: str | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the flag, on what cannot be used."""
        if self.features is None and not self.audio:
            raise ConfigError("neither --features nor --audio is given; one has the trials' utterances")
        if self.train_features is None and (self.scoring in TRAINED_SCORINGS or self.quality):
            wants = f"--scoring {self.scoring}" if self.scoring in TRAINED_SCORINGS else "--quality"
            raise ConfigError(
                f"{wants} needs --train-features, the feature set that the model was trained on"
            )
        if not 0 < self.p_target < 1:
            raise ConfigError(f"--p-target is {self.p_target}; expected a share between 0 and 1")
        for name, least in (("top_cohort", 2), ("cohort_utterances", 1), ("num_resamples", 0)):
            if getattr(self, name) < least:
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{flag} is {getattr(self, name)}; expected at least {least}")
        names = [self.system_name, *(name for name, _ in self.systems)]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"--compare: the names {', '.join(names)} are not distinct; give each its own, as NAME=FILE"
            )

    @property
    def system_name(self) -> str:
        """How the report calls what is evaluated."""
        return f"{self.scoring} with quality" if self.quality else self.scoring

    @property
    def systems(self) -> list[tuple[str, str]]:
        """Name and score file of each system to compare with.

        Raises:
            ConfigError: If an entry is neither a file nor `NAME=FILE`.
        """
        from voxsrc.scores import named_scores

        return [named_scores(entry) for entry in self.compare]
