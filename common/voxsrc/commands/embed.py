"""`voxsrc embed`: the embeddings of a list of utterances, as a file."""

import argparse
from typing import TYPE_CHECKING, Any

from voxsrc.command import add_debug_flag, warn

if TYPE_CHECKING:
    from voxsrc.embedding import Embeddings
    from voxsrc.embedding.embedder import Embedder


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `embed`."""
    command = groups.add_parser(
        "embed", help="write the embeddings of a list of utterances", description=_embed.__doc__
    )
    command.add_argument("list", metavar="LIST", help="utterance list, lines `speaker path`")
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--audio",
        action="append",
        metavar="URI",
        help="folder, tar or zip with the audio, local or gs://; may be repeated, no utterance in two",
    )
    source.add_argument("--features", metavar="DIR", help="feature set, local or gs://")
    command.add_argument("--model", required=True, metavar="DIR", help="a trained model's folder")
    command.add_argument(
        "--output", required=True, metavar="FILE", help="what to write: a name in .npz or .safetensors"
    )
    command.add_argument(
        "--crops", action="store_true", help="10 crops of 400 frames instead of the whole utterance"
    )
    command.add_argument("--cache", metavar="DIR", help="folder that keeps embeddings: a killed run goes on")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    command.set_defaults(function=_embed)
    add_debug_flag(command)


def _embed(parsed: argparse.Namespace) -> None:
    """Embeds listed utterances and writes `utterance_ids`, `vectors` and `num_frames`, without pickle.

    Vectors are not length-normalised: one an utterance, or ten with --crops.
    """
    from voxsrc.corpus import read_utterance_list
    from voxsrc.embedding import CROPS, WHOLE_UTTERANCES
    from voxsrc.embedding.embedder import Embedder
    from voxsrc.embedding.stored import check_suffix, write_embeddings
    from voxsrc.models.stored import load_model
    from voxsrc.sources import audio_uris

    check_suffix(parsed.output)
    uris = audio_uris(parsed.audio) if parsed.audio else ()
    ids = [utterance.utterance_id for utterance in read_utterance_list(parsed.list)]
    model = load_model(parsed.model)
    embedder = Embedder(
        model,
        device=parsed.device,
        mode=CROPS if parsed.crops else WHOLE_UTTERANCES,
        cache_uri=parsed.cache,
        progress=True,
    )
    embeddings, source = _embeddings(parsed, uris, embedder, ids)
    made_from = {**source, "model": parsed.model, "model_hash": model.model_hash, "mode": embedder.mode.tag}
    write_embeddings(parsed.output, embeddings, made_from)
    shape = " × ".join(map(str, embeddings.vectors.shape[1:]))
    print(f"{parsed.output}: {len(embeddings):,} utterances, {shape} values each")


def _embeddings(
    parsed: argparse.Namespace, uris: tuple[str, ...], embedder: "Embedder", ids: list[str]
) -> tuple["Embeddings", dict[str, Any]]:
    """The embeddings, and what they were made from."""
    from voxsrc.embedding.opening import open_for_embedding

    if parsed.features is not None:
        spec = embedder.model.description.spec
        features = open_for_embedding(parsed.features, parsed.device, spec=spec)
        return embedder.embed_set(features, ids), {"features": parsed.features}
    embeddings, report = embedder.embed_audio(uris, ids)
    for note in report.notes(embedder.model.description.spec):
        warn(note)
    return embeddings, {"audio": uris[0] if len(uris) == 1 else list(uris)}
