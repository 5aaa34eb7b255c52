"""The pipeline from recordings to results: extract train and test set → train → evaluate."""

from typing import NamedTuple

from kfp import dsl

from voxsrc.pipelines import components
from voxsrc.pipelines.components import EVALUATE_IMAGE, FEATURE_EXTRACTOR_IMAGE, TRAIN_IMAGE, with_names
from voxsrc.pipelines.extract import PARTS, extract_pipeline
from voxsrc.pipelines.pods import CPU_POOL, GPU_POOL, on_gpu_nodes


class Results(NamedTuple):
    """The small results; models, checkpoints, scores and the report lie at the URIs of the parameters."""

    training: dsl.Metrics
    evaluation: dsl.Metrics
    report: dsl.HTML


@dsl.pipeline(name="voxsrc-train")  # type: ignore[untyped-decorator]  # kfp ships no types
@with_names
def train_pipeline(
    train_audio: str,
    train_list: str,
    train_features: str,
    test_audio: str,
    test_list: str,
    test_features: str,
    trials: str,
    training: str,
    evaluation: str,
    preset: str = "lfb40",
    step: float = 0.2,
    speed: str = "",
    max_rejected: float = 0.01,
    num_shards: int = 0,
    parts: list[str] = PARTS,
    num_workers: int = 8,
    recipe: str = "fast_resnet34_angleproto",
    overrides: str = "",
    num_gpus: str = "1",
    scoring: str = "cosine",
    metadata: str = "",
    p_target: float = 0.05,
    num_resamples: int = 1000,
    title: str = "Speaker verification",
    feature_extractor_image: str = FEATURE_EXTRACTOR_IMAGE,
    train_image: str = TRAIN_IMAGE,
    evaluate_image: str = EVALUATE_IMAGE,
    cpu_node_selector: dict[str, str] = CPU_POOL,
    gpu_node_selector: dict[str, str] = GPU_POOL,
) -> Results:
    """Makes the feature sets, trains a speaker-embedding model on one and evaluates it on the other.

    Run again with the same URIs, it continues: finished sets and models are taken as they are, and an
    interrupted training goes on from its last checkpoint.

    Args:
        train_audio: Folders, tars or zips of the recordings to train on, gs:// URIs divided by semicolons.
        train_list: List of "speaker path" lines of them, a gs:// URI; empty for all.
        train_features: Folder of the feature set made of them, a gs:// URI.
        test_audio: Folders, tars or zips of the recordings that the trials name, likewise.
        test_list: List of "speaker path" lines of them, a gs:// URI; empty for all.
        test_features: Folder of the feature set made of them, a gs:// URI.
        trials: Labelled trials, a gs:// URI.
        training: Folder for checkpoints, history and model, a gs:// URI.
        evaluation: Folder for scores, metrics and report, a gs:// URI.
        preset: Filterbank: {presets}.
        step: Quantisation step in nat, 0.1 or 0.2.
        speed: Speed-perturbed copies to add to the train set, as in "0.9,1.1"; empty for none.
        max_rejected: Largest fraction of unusable recordings before the run fails.
        num_shards: Files of each feature set; 0 chooses by the number of utterances.
        parts: One pod for each, per feature set; "I/N" makes the I-th of N equal parts, I from 0; all N are
            needed.
        num_workers: Processes of each of these pods.
        recipe: {recipes}, or a YAML file's gs:// URI.
        overrides: Keys of the recipe to replace, as in "num_steps=1000; batch_size=128"; empty for none.
        num_gpus: Of one node that trains, as text; they share each batch.
        scoring: cosine, mean-distance, as-norm or plda.
        metadata: Table whose columns are conditions of the report, a gs:// URI; empty for none.
        p_target: Share of same-speaker trials that detection costs assume.
        num_resamples: Of the speakers, for the intervals.
        title: Heading of the report.
        feature_extractor_image: Image of the feature extractor, by digest.
        train_image: Image of the trainer, by digest.
        evaluate_image: Image of the evaluator, by digest.
        cpu_node_selector: Labels of the nodes that extract, texts: {voxsrc/pool: cpu-spot} is Spot alone,
            however long the wait; {voxsrc/kind: cpu} is Spot or, when there is none, on demand; cpu-on-demand
            is dearer and stays.
        gpu_node_selector: Labels of the nodes that train and evaluate, texts: {voxsrc/pool: gpu-spot-l4} is
            one type of GPU on Spot alone; {voxsrc/gpu: l4} is that type on Spot or, when there is none, on
            demand; gpu-on-demand-l4 is dearer and stays.
    """
    train_set = extract_pipeline(
        audio=train_audio,
        output=train_features,
        utterance_list=train_list,
        preset=preset,
        step=step,
        speed=speed,
        max_rejected=max_rejected,
        num_shards=num_shards,
        parts=parts,
        num_workers=num_workers,
        feature_extractor_image=feature_extractor_image,
        cpu_node_selector=cpu_node_selector,
    )
    train_set.set_display_name("extract-train-set").set_caching_options(False)
    test_set = extract_pipeline(
        audio=test_audio,
        output=test_features,
        utterance_list=test_list,
        preset=preset,
        step=step,
        # Given, though it is the default: kfp.local would take this pipeline's parameter of the same name.
        speed="",
        max_rejected=max_rejected,
        num_shards=num_shards,
        parts=parts,
        num_workers=num_workers,
        feature_extractor_image=feature_extractor_image,
        cpu_node_selector=cpu_node_selector,
    )
    test_set.set_display_name("extract-test-set").set_caching_options(False)

    train = components.train(
        features=train_features,
        output=training,
        recipe=recipe,
        overrides=overrides,
        num_processes=num_gpus,
    )
    train.after(train_set)
    train.set_container_image(train_image)
    on_gpu_nodes(
        train,
        gpu_node_selector,
        num_gpus,
        component="train",
        cpus=6,
        memory="20G",
        shared_memory="8Gi",
        hours=7 * 24,
    )

    evaluate = components.evaluate(
        model=f"{training}/model",
        trials=trials,
        output=evaluation,
        features=test_features,
        audio=test_audio,
        scoring=scoring,
        train_features=train_features,
        metadata=metadata,
        p_target=p_target,
        num_resamples=num_resamples,
        title=title,
    )
    evaluate.after(train, test_set)
    evaluate.set_container_image(evaluate_image)
    on_gpu_nodes(
        evaluate,
        gpu_node_selector,
        1,
        component="evaluate",
        cpus=4,
        memory="16G",
        shared_memory="2Gi",
        hours=24,
    )
    return Results(
        training=train.outputs["metrics"],
        evaluation=evaluate.outputs["metrics"],
        report=evaluate.outputs["report"],
    )
