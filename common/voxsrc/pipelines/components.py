"""The components as Kubeflow Pipelines sees them: one container, its flags, its outputs.

Large data go by URI, as String parameters: the launcher would copy an artifact to every pod. What a
component cannot carry (environment, resources, node selectors, retries) is set on a pipeline's tasks.
"""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from voxsrc.features import PRESETS
from voxsrc.recipes import shipped_recipes

# They name no registry: a pipeline replaces them by the images that build_image.sh pushed, by digest.
FEATURE_EXTRACTOR_IMAGE = "voxsrc-feature-extractor:0.1.0"
TRAIN_IMAGE = "voxsrc-train:0.1.0"
EVALUATE_IMAGE = "voxsrc-evaluate:0.1.0"


def with_names(definition: Callable[..., Any]) -> Callable[..., Any]:
    """Puts the names of recipes and presets where the docstring has {recipes} and {presets}: kfp shows it."""
    *most, last = PRESETS
    names = {"recipes": ", ".join(shipped_recipes()), "presets": f"{', '.join(most)} or {last}"}
    for key, listed in names.items():
        definition.__doc__ = (definition.__doc__ or "").replace(f"{{{key}}}", listed)
    return definition


@dsl.container_component  # type: ignore[untyped-decorator]  # kfp ships no types
@with_names
def feature_extractor(
    audio: str,
    output: str,
    metrics: dsl.Output[dsl.Metrics],
    utterance_list: str = "",
    preset: str = "lfb40",
    step: float = 0.2,
    num_workers: int = 4,
    num_shards: int = 0,
    speed: str = "",
    max_rejected: float = 0.01,
) -> dsl.ContainerSpec:
    """Extracts log-mel features from speech into a feature set; a run that was interrupted continues.

    Args:
        audio: Folder, tar or zip of recordings, a path or gs:// URI; several divided by semicolons.
        output: Folder of the feature set, a path or gs:// URI.
        metrics: Utterances, speakers, hours, megabytes, percent of PCM16, rejected utterances.
        utterance_list: List of "speaker path" lines, a path or gs:// URI; empty for all of audio.
        preset: Filterbank: {presets}.
        step: Quantisation step in nat, 0.1 or 0.2.
        num_workers: Processes.
        num_shards: Parts of the set; 0 chooses by the number of utterances.
        speed: Speed-perturbed copies to add, as in "0.9,1.1"; empty for none.
        max_rejected: Largest fraction of unusable recordings before the run fails.
    """
    return dsl.ContainerSpec(
        image=FEATURE_EXTRACTOR_IMAGE,
        command=["feature-extractor"],
        args=[
            "run",
            "--audio",
            audio,
            "--list",
            utterance_list,
            "--output",
            output,
            "--preset",
            preset,
            "--step",
            step,
            "--num-workers",
            num_workers,
            "--num-shards",
            num_shards,
            "--speed",
            speed,
            "--max-rejected",
            max_rejected,
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )


@dsl.container_component  # type: ignore[untyped-decorator]  # kfp ships no types
@with_names
def train(
    features: str,
    output: str,
    metrics: dsl.Output[dsl.Metrics],
    recipe: str = "fast_resnet34_angleproto",
    overrides: str = "",
    num_processes: str = "1",
) -> dsl.ContainerSpec:
    """Trains a speaker-embedding model on a feature set; a run that was interrupted continues.

    Args:
        features: Feature set to train on, a path or gs:// URI.
        output: Folder of the run, a path or gs:// URI that stays the same when the step is retried.
        metrics: Steps, loss, accuracy and validation EER (a fraction) of the finished model.
        recipe: {recipes}, or a YAML file's path or gs:// URI.
        overrides: Keys of the recipe to replace, as in "num_steps=1000; batch_size=128"; empty for none.
        num_processes: Processes that share each batch, as text; as many as the step has GPUs.
    """
    return dsl.ContainerSpec(
        image=TRAIN_IMAGE,
        command=["python", "-m", "trainer.launch"],
        args=[
            "--recipe",
            recipe,
            "--features",
            features,
            "--output",
            output,
            "--overrides",
            overrides,
            "--num-processes",
            num_processes,
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )


@dsl.container_component  # type: ignore[untyped-decorator]  # kfp ships no types
def evaluate(
    model: str,
    trials: str,
    output: str,
    metrics: dsl.Output[dsl.Metrics],
    roc: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    features: str = "",
    audio: str = "",
    scoring: str = "cosine",
    train_features: str = "",
    metadata: str = "",
    p_target: float = 0.05,
    num_resamples: int = 1000,
    title: str = "Speaker verification",
) -> dsl.ContainerSpec:
    """Scores trials with a model, and reports EER, minDCF and more with 95 % intervals over speakers.

    Args:
        model: Folder of the model, a path or gs:// URI.
        trials: Labelled trials, a path or gs:// URI.
        output: Folder for scores, metrics, report and kept embeddings, a path or gs:// URI that stays the
            same when the step is retried.
        metrics: EER (a fraction), minDCF, Cllr and others, each with the ends of its interval.
        roc: Receiver operating characteristic.
        report: The whole report, one page.
        features: Feature set with the trials' utterances, a path or gs:// URI.
        audio: Their recordings, URIs divided by semicolons: players in the report; embedded without features.
        scoring: cosine, mean-distance, as-norm or plda.
        train_features: Feature set that the model was trained on; as-norm and plda need it.
        metadata: Table whose columns are conditions of the report, a path or gs:// URI.
        p_target: Share of same-speaker trials that detection costs assume.
        num_resamples: Of the speakers, for the intervals.
        title: Heading of the report.
    """
    return dsl.ContainerSpec(
        image=EVALUATE_IMAGE,
        command=["evaluator"],
        args=[
            "--model",
            model,
            "--trials",
            trials,
            "--output",
            output,
            "--features",
            features,
            "--audio",
            audio,
            "--scoring",
            scoring,
            "--train-features",
            train_features,
            "--metadata",
            metadata,
            "--p-target",
            p_target,
            "--num-resamples",
            num_resamples,
            "--title",
            title,
            "--report-path",
            report.path,
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )


@dsl.container_component  # type: ignore[untyped-decorator]  # kfp ships no types
def plan_extraction(
    audio: str,
    output: str,
    utterance_list: str = "",
    preset: str = "lfb40",
    step: float = 0.2,
    speed: str = "",
    max_rejected: float = 0.01,
    num_shards: int = 0,
) -> dsl.ContainerSpec:
    """Finds the audio of every utterance and divides it into shards; does nothing for a finished set.

    Args:
        audio: See `feature_extractor`, as the others.
        output: Folder of the feature set.
        utterance_list: List of "speaker path" lines.
        preset: Filterbank.
        step: Quantisation step in nat.
        speed: Speed-perturbed copies to add.
        max_rejected: Largest fraction of unusable recordings.
        num_shards: Parts of the set.
    """
    return dsl.ContainerSpec(
        image=FEATURE_EXTRACTOR_IMAGE,
        command=["feature-extractor"],
        args=[
            "plan",
            "--audio",
            audio,
            "--list",
            utterance_list,
            "--output",
            output,
            "--preset",
            preset,
            "--step",
            step,
            "--speed",
            speed,
            "--max-rejected",
            max_rejected,
            "--num-shards",
            num_shards,
        ],
    )


@dsl.container_component  # type: ignore[untyped-decorator]  # kfp ships no types
def extract_part(output: str, part: str, num_workers: int = 4) -> dsl.ContainerSpec:
    """Makes one part of the shards of a plan, but for those that are finished.

    Args:
        output: Folder of the feature set.
        part: "I/N": the I-th of N equal parts, I from 0.
        num_workers: Processes.
    """
    return dsl.ContainerSpec(
        image=FEATURE_EXTRACTOR_IMAGE,
        command=["feature-extractor"],
        args=["extract", "--output", output, "--part", part, "--num-workers", num_workers],
    )


@dsl.container_component  # type: ignore[untyped-decorator]  # kfp ships no types
def finish_extraction(output: str, metrics: dsl.Output[dsl.Metrics]) -> dsl.ContainerSpec:
    """Checks that all shards of the plan are made, and writes index and manifest.

    Args:
        output: Folder of the feature set.
        metrics: Utterances, speakers, hours, megabytes, percent of PCM16, rejected utterances.
    """
    return dsl.ContainerSpec(
        image=FEATURE_EXTRACTOR_IMAGE,
        command=["feature-extractor"],
        args=[
            "finish",
            "--output",
            output,
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
