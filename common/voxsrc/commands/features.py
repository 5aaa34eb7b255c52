"""`voxsrc features`: what is in a feature set, and is it whole."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from voxsrc.command import add_debug_flag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxsrc.feature_set import Manifest

_DAMAGED = 1


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `features` with its subcommands."""
    group = groups.add_parser("features", help="inspect and check feature sets")
    commands = group.add_subparsers(dest="command", required=True, metavar="COMMAND")
    info = commands.add_parser(
        "info", help="what a feature set holds and how large it is", description=_info.__doc__
    )
    info.add_argument("uri", metavar="DIR", help="the set's folder, local or gs://")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(function=_info)
    verify = commands.add_parser(
        "verify", help="check every byte of a feature set", description=_verify.__doc__
    )
    verify.add_argument("uri", metavar="DIR", help="the set's folder, local or gs://")
    verify.set_defaults(function=_verify)
    for command in (info, verify):
        add_debug_flag(command)


def _info(parsed: argparse.Namespace) -> None:
    """Says what a feature set holds, how it was made, and its size beside 16-bit PCM."""
    from voxsrc.feature_set import read_manifest
    from voxsrc.feature_set.verification import folder_bytes

    manifest = read_manifest(parsed.uri)
    summary = summarise(manifest, folder_bytes(parsed.uri))
    if parsed.json:
        print(json.dumps(summary, indent=1, ensure_ascii=False))
        return
    encoding, made_from = manifest.encoding, manifest.made_from
    rejected = ", ".join(f"{count} {reason}" for reason, count in manifest.num_rejected.items()) or "none"
    counts = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in manifest.counts.items())
    rows = {
        "utterances": f"{manifest.num_utterances:,} of {manifest.num_speakers:,} speakers",
        "audio": f"{manifest.seconds / 3600:.2f} h ({manifest.num_frames:,} frames)",
        "features": f"{manifest.spec.num_mels} log-mel bands, spec {manifest.spec.hash}",
        "stored as": f"uint8, step {encoding.step_nat:g} nat (error at most {encoding.step_nat / 2:g}), "
        f"from {encoding.offset_nat:.2f} nat",
        "size": f"{summary['bytes'] / 1e6:.2f} MB in {len(manifest.shards)} shards, index and manifest, "
        f"{summary['percent_of_pcm16']:.2f} % of the audio as 16-bit PCM",
        "on disk": f"{summary['folder_bytes'] / 1e6:.2f} MB with the records that let it resume",
        "rejected": rejected,
        "audio changed": counts,
        "made from": f"{_audio(made_from)}, list {made_from.get('list') or '(all files)'}",
    }
    for name, text in rows.items():
        print(f"{name:>14}  {text}")


def _audio(made_from: "Mapping[str, Any]") -> str:
    """The source of the audio, or all of several."""
    audio = made_from.get("audio")
    return ", ".join(audio) if isinstance(audio, list) else str(audio)


def summarise(manifest: "Manifest", folder_bytes: int) -> dict[str, Any]:
    """The figures that `--json` prints.

    `bytes` and `percent_of_pcm16` count the manifest, which its own figures of these names cannot.
    """
    from voxsrc.feature_set.manifest import percent

    set_bytes = manifest.stored_bytes + len(manifest.to_json())
    return {
        "num_utterances": manifest.num_utterances,
        "num_speakers": manifest.num_speakers,
        "num_frames": manifest.num_frames,
        "num_shards": len(manifest.shards),
        "seconds": manifest.seconds,
        "bytes": set_bytes,
        "folder_bytes": folder_bytes,
        "pcm16_bytes": manifest.pcm16_bytes,
        "percent_of_pcm16": percent(set_bytes, manifest.pcm16_bytes),
        "fbank_spec_hash": manifest.spec.hash,
        "fbank_spec": manifest.spec.to_dict(),
        "step_nat": manifest.encoding.step_nat,
        "max_error_nat": manifest.encoding.step_nat / 2,
        "num_rejected": dict(manifest.num_rejected),
        "counts": dict(manifest.counts),
        "made_from": dict(manifest.made_from),
    }


def _verify(parsed: argparse.Namespace) -> int:
    """Reads a whole feature set, checks every file's SHA-256 and decodes every shard.

    Exits with 1 and names each damaged file if there is one.
    """
    from tqdm import tqdm

    from voxsrc.feature_set import read_manifest
    from voxsrc.feature_set.manifest import StoredShard
    from voxsrc.feature_set.verification import verify

    manifest = read_manifest(parsed.uri)
    with tqdm(total=manifest.stored_bytes, unit="B", unit_scale=True, desc="verifying", leave=False) as bar:

        def advance(shard: StoredShard) -> None:
            bar.update(shard.bytes)

        problems = verify(parsed.uri, on_shard=advance)
    for problem in problems:
        print(f"damaged: {problem}")
    if not problems:
        print(
            f"{parsed.uri}: {len(manifest.shards)} shards, {manifest.num_utterances:,} utterances, all whole"
        )
    return _DAMAGED if problems else 0
