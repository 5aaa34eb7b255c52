"""A trained model whose weights a training begins with, and the speakers that it knows."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from voxsrc.errors import ConfigError
from voxsrc.features import FbankSpec
from voxsrc.models.encoder import EncoderConfig
from voxsrc.models.stored import ModelDescription, ModelError, StoredModel, load_model

# Of a training's identity and a model's provenance.
TRAINING_SPEAKERS = "training_speakers"

_HASH_BYTES = 4  # 24 kB for VoxCeleb2, and one stranger in 700,000 is taken for one of its speakers
_PREFIX = f"sha256/{_HASH_BYTES}:"


def fitting_model(uri: str, encoder: EncoderConfig, spec: FbankSpec, features_uri: str) -> StoredModel:
    """The model at `uri`, of this encoder and for these features.

    Raises:
        NotFoundError: If it is not there.
        ModelError: If it is damaged or for other features.
        ConfigError: If it has another encoder.
    """
    model = load_model(uri)
    model.check_spec(spec, features_uri)
    theirs, ours = model.description.encoder.to_dict(), encoder.to_dict()
    different = [f"{key}: {theirs.get(key)!r} → {v!r}" for key, v in ours.items() if theirs.get(key) != v]
    if different:
        raise ConfigError(
            f"initial_model {uri} has another encoder than the recipe: {'; '.join(different)}; "
            "set the recipe's encoder to the model's"
        )
    return model


def doubt_about_held_out(
    uri: str, description: ModelDescription, held_out: Sequence[str], identity: Mapping[str, Any]
) -> str | None:
    """What is doubtful about judging a training by speakers whom its initial model may know; None if nothing.

    Args:
        uri: The initial model's.
        description: What it says of itself.
        held_out: The speakers that the training holds out, without their speed-perturbed copies.
        identity: The training's.
    """
    if not held_out:
        return None
    remedy = (
        "validation EER, patience and the calibration may be too good; hold out no more than the model did "
        "(validation.fraction), or nobody (0)"
    )
    record = description.provenance.get(TRAINING_SPEAKERS)
    if record is not None:
        if known := known_among(held_out, record, uri):
            return (
                f"initial_model {uri} was trained on {len(known):,} of the {len(held_out):,} speakers held "
                f"out for validation, such as {known[0]}: {remedy}"
            )
        return None
    if _knows_nobody_else(description, identity):
        return None
    return (
        f"initial_model {uri} does not say on whom it was trained: if that was on speakers held out for "
        f"validation, {remedy}"
    )


def record_with(own: str, uri: str, description: ModelDescription, identity: Mapping[str, Any]) -> str | None:
    """On whom the model of a training is trained, as a record; None if the initial model does not say.

    Args:
        own: The record of the training's speakers.
        uri: The initial model's.
        description: What it says of itself.
        identity: The training's.
    """
    theirs = description.provenance.get(TRAINING_SPEAKERS)
    if theirs is not None:
        return merged_records(own, theirs, uri)
    return own if _knows_nobody_else(description, identity) else None


def _knows_nobody_else(description: ModelDescription, identity: Mapping[str, Any]) -> bool:
    """Whether a model without a record, as of earlier versions, is known to know only a training's speakers.

    Who is held out of one set at a fraction is, too, at a larger.
    """
    provenance = description.provenance
    same_set = provenance.get("features_sha256") == identity["features_sha256"]
    theirs = description.recipe.get("validation", {}).get("fraction", 0.0)
    ours = identity["recipe"]["validation"]["fraction"]
    return bool(same_set and ours <= theirs and "initial_model" not in provenance)


def speaker_record(speakers: Iterable[str]) -> str:
    """Speakers as one line of text, by which each can be told from nearly all others."""
    return _to_text({_hash(speaker) for speaker in speakers})


def merged_records(first: str, second: object, model_uri: str) -> str:
    """The speakers of two records, of which the second is that of a model: see `known_among`."""
    return _to_text(_from_text(first, "") | _from_text(second, model_uri))


def known_among(speakers: Iterable[str], record: object, model_uri: str) -> list[str]:
    """Those of the speakers whom a model's record has, in their order.

    Raises:
        ModelError: If it is no such record.
    """
    known = _from_text(record, model_uri)
    return [speaker for speaker in speakers if _hash(speaker) in known]


def _hash(speaker: str) -> bytes:
    return hashlib.sha256(speaker.encode()).digest()[:_HASH_BYTES]


def _to_text(hashes: set[bytes]) -> str:
    return _PREFIX + base64.b64encode(b"".join(sorted(hashes))).decode()


def _from_text(record: object, model_uri: str) -> set[bytes]:
    try:
        if not isinstance(record, str) or not record.startswith(_PREFIX):
            raise ValueError(f"it does not begin with {_PREFIX}")
        content = base64.b64decode(record.removeprefix(_PREFIX), validate=True)
        if len(content) % _HASH_BYTES:
            raise ValueError(f"its {len(content)} bytes are no multiple of {_HASH_BYTES}")
    except ValueError as error:
        raise ModelError(
            f"{model_uri}: provenance.{TRAINING_SPEAKERS} is no list of speakers: {error}; delete the line, "
            "or take the model from where it was trained"
        ) from error
    return {content[start : start + _HASH_BYTES] for start in range(0, len(content), _HASH_BYTES)}
