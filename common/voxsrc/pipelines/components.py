"""The components as Kubeflow Pipelines sees them: one container, its flags, its outputs.

Large data go by URI, as String parameters: the launcher would copy an artifact to every pod. What a
component cannot carry (environment, resources, node selectors, retries) is set on a pipeline's tasks.
"""

from kfp import dsl

# They name no registry: a pipeline replaces them by the images that build_image.sh pushed, by digest.
FEATURE_EXTRACTOR_IMAGE = "voxsrc-feature-extractor:0.1.0"
TRAIN_IMAGE = "voxsrc-train:0.1.0"


@dsl.container_component  # type: ignore[untyped-decorator]  # kfp ships no types
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
        audio: Folder, tar or zip of recordings, a path or gs:// URI.
        output: Folder of the feature set, a path or gs:// URI.
        metrics: Utterances, speakers, hours, megabytes, percent of PCM16, rejected utterances.
        utterance_list: List of "speaker path" lines, a path or gs:// URI; empty for all of audio.
        preset: Filterbank: lfb40, voxceleb_trainer or kaldi80.
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
def train(
    features: str,
    output: str,
    metrics: dsl.Output[dsl.Metrics],
    recipe: str = "fast_resnet34_angleproto",
    overrides: str = "",
    num_processes: int = 1,
) -> dsl.ContainerSpec:
    """Trains a speaker-embedding model on a feature set; a run that was interrupted continues.

    Args:
        features: Feature set to train on, a path or gs:// URI.
        output: Folder of the run, a path or gs:// URI that stays the same when the step is retried.
        metrics: Steps, loss, accuracy and validation EER (a fraction) of the finished model.
        recipe: demo, fast_resnet34_angleproto, resnet34_aam, ecapa_aam, or a YAML file's path or gs:// URI.
        overrides: Keys of the recipe to replace, as in "num_steps=1000; batch_size=128"; empty for none.
        num_processes: Processes that share each batch; as many as the step has GPUs.
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
