"""The pipeline that makes a feature set: plan → workers side by side → finish."""

from typing import NamedTuple

from kfp import dsl

from voxsrc.pipelines import components
from voxsrc.pipelines.components import FEATURE_EXTRACTOR_IMAGE, with_names
from voxsrc.pipelines.pods import CPU_POOL, on_cpu_nodes

_COMPONENT = "feature-extractor"
# One for each node of a pool of eight, as env/cloud.env.example has it.
PARTS = [f"{index}/8" for index in range(8)]


class Extracted(NamedTuple):
    """Utterances, speakers, hours, megabytes, percent of PCM16, rejected utterances of the feature set."""

    metrics: dsl.Metrics


@dsl.pipeline(name="voxsrc-extract")  # type: ignore[untyped-decorator]  # kfp ships no types
@with_names
def extract_pipeline(
    audio: str,
    output: str,
    utterance_list: str = "",
    preset: str = "lfb40",
    step: float = 0.2,
    speed: str = "",
    max_rejected: float = 0.01,
    num_shards: int = 0,
    parts: list[str] = PARTS,
    num_workers: int = 8,
    feature_extractor_image: str = FEATURE_EXTRACTOR_IMAGE,
    cpu_node_selector: dict[str, str] = CPU_POOL,
) -> Extracted:
    """Extracts log-mel features from speech into a feature set, on several nodes at once.

    Run again with the same output, it continues, or returns at once if the set is finished.

    Args:
        audio: Folder, tar or zip of recordings, a gs:// URI; several divided by semicolons.
        output: Folder of the feature set, a gs:// URI.
        utterance_list: List of "speaker path" lines, a gs:// URI; empty for all of audio.
        preset: Filterbank: {presets}.
        step: Quantisation step in nat, 0.1 or 0.2.
        speed: Speed-perturbed copies to add, as in "0.9,1.1"; empty for none.
        max_rejected: Largest fraction of unusable recordings before the run fails.
        num_shards: Files of the set; 0 chooses by the number of utterances.
        parts: One pod for each; "I/N" makes the I-th of N equal parts of the shards, I from 0; all N are
            needed.
        num_workers: Processes of each pod.
        feature_extractor_image: Image of the feature extractor, by digest.
        cpu_node_selector: Labels of the nodes, texts: {voxsrc/pool: cpu-spot} is Spot alone, however long
            the wait; {voxsrc/kind: cpu} is Spot or, when there is none, on demand; cpu-on-demand is dearer
            and stays.
    """
    plan = components.plan_extraction(
        audio=audio,
        output=output,
        utterance_list=utterance_list,
        preset=preset,
        step=step,
        speed=speed,
        max_rejected=max_rejected,
        num_shards=num_shards,
    )
    with dsl.ParallelFor(parts) as part:
        extract = components.extract_part(output=output, part=part, num_workers=num_workers)
        extract.after(plan)
    finish = components.finish_extraction(output=output)
    finish.after(extract)
    for task, cpus, memory, hours in ((plan, 1, "4G", 4), (extract, 6, "8G", 24), (finish, 1, "4G", 4)):
        task.set_container_image(feature_extractor_image)
        on_cpu_nodes(task, cpu_node_selector, component=_COMPONENT, cpus=cpus, memory=memory, hours=hours)
    return Extracted(metrics=finish.outputs["metrics"])
