"""Embeds utterances of a feature set or of audio with a stored model.

Letters: U utterances, B batch, K crops, D embedding, T frames, F mel bands.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from voxsrc.corpus import Utterance, session_of
from voxsrc.device import chosen_device
from voxsrc.embedding.audio_features import AudioReport, HeardUtterance, read_utterances
from voxsrc.embedding.cache import CacheKey, EmbeddingCache
from voxsrc.embedding.embeddings import (
    MAX_FRAMES,
    TOO_LONG,
    WHOLE_UTTERANCES,
    EmbeddingError,
    EmbeddingMode,
    Embeddings,
    Float32Array,
    check_unique,
)
from voxsrc.embedding.windows import Window, windows_of_audio, windows_of_set
from voxsrc.errors import AudioError, ConfigError
from voxsrc.feature_set import FeatureSet
from voxsrc.models.encoder import evaluating
from voxsrc.models.stored import StoredModel
from voxsrc.sources import Member, Readable, match_utterances, open_sources

# On a CPU larger batches fall out of its caches; elsewhere so many frames take 3 GB with the largest model.
_CPU_BATCH_FRAMES, _BATCH_FRAMES = 1_600, 60_000
_LOG_INTERVAL_S = 30.0


class Embedder:
    """Turns utterances into embeddings.

    Whole utterances are batched with others of the same number of frames and never padded: an embedding is
    that of the utterance alone, but for the order in which sums are rounded (1e-6 of its length).

    Args:
        model: What with; it is moved to the device, and its memory format may change.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        mode: Whole utterances, or crops of them.
        batch_frames: Most frames of a batch; by default what suits the device. A longer utterance is alone.
        max_frames: Most frames of a whole utterance, which bounds memory; crops may be of any length.
        cache_uri: Folder, local or gs://, that keeps embeddings for other runs; None keeps none.
        progress: Whether a progress bar is shown on stderr.

    Raises:
        ConfigError: If there is no such device, or crops are shorter than the model needs.

    Example:
        >>> embedder = Embedder(load_model("gs://bucket/run/model"), device="auto")
        >>> embedder.embed_set(FeatureSet.open("gs://bucket/vox1-test")).vectors.shape
        (4874, 512)
    """

    def __init__(
        self,
        model: StoredModel,
        *,
        device: str = "cpu",
        mode: EmbeddingMode = WHOLE_UTTERANCES,
        batch_frames: int | None = None,
        max_frames: int = MAX_FRAMES,
        cache_uri: str | None = None,
        progress: bool = False,
    ) -> None:
        self.model = model
        self.mode = mode
        self.device = chosen_device(device)
        encoder = model.encoder
        if mode.name == "crops" and mode.crop_frames < encoder.min_frames:
            raise ConfigError(
                f"crop_frames is {mode.crop_frames}; {encoder.config.name} needs at least "
                f"{encoder.min_frames}"
            )
        on_cpu = self.device.type == "cpu"
        self._encoder = encoder.to(self.device)
        if on_cpu:
            # A fifth faster for residual networks.
            encoder.to(memory_format=torch.channels_last)
        self._batch_frames = batch_frames or (_CPU_BATCH_FRAMES if on_cpu else _BATCH_FRAMES)
        self._max_frames = max_frames
        self._cache_uri = cache_uri
        self._progress = progress
        self._row_shape = mode.row_shape(encoder.embedding_dim)

    def embed_set(self, features: FeatureSet, utterance_ids: Sequence[str] | None = None) -> Embeddings:
        """Embeds utterances of a feature set.

        A set that is open by shard is worked through shard by shard; one in RAM or mapped as a whole in the
        order of lengths, which gives the larger batches that a GPU wants.

        Args:
            features: The set.
            utterance_ids: Which, each once; None is all.

        Returns:
            The embeddings in the order asked for.

        Raises:
            ModelError: If the model needs other features.
            EmbeddingError: If utterances are not in the set, or too short or too long; names all.
            FeatureSetError: If the set is damaged.
        """
        self.model.check_spec(features.manifest.spec, features.uri)
        index = features.index
        ids = list(index.utterance_ids if utterance_ids is None else utterance_ids)
        check_unique(ids)
        row_of = {utterance_id: row for row, utterance_id in enumerate(index.utterance_ids)}
        reasons = {name: "missing: not in the feature set" for name in ids if name not in row_of}
        rows = np.array([row_of[name] for name in ids if name in row_of], np.int64)
        num_frames = index.num_frames[rows]
        for row, count in zip(rows.tolist(), num_frames.tolist(), strict=True):
            if reason := self.length_problem(count):
                reasons[index.utterance_ids[row]] = reason
        if reasons:
            raise _unusable(reasons, len(ids), features.uri)
        vectors = self._empty(len(ids))
        cache = self._cache(features.manifest.content_sha256)
        known = cache.load() if cache else {}
        waiting = []
        for position, utterance_id in enumerate(ids):
            if utterance_id in known:
                vectors[position] = known[utterance_id][0]
            else:
                waiting.append(position)
        windows = windows_of_set(features, rows, np.array(waiting, np.int64))
        with self._bar(len(ids), len(ids) - len(waiting)) as bar:
            self._embed_windows(windows, ids, vectors, cache, bar)
        return Embeddings(ids, vectors, num_frames)

    def embed_audio(
        self, audio_uris: str | Sequence[str], utterance_ids: Sequence[str]
    ) -> tuple[Embeddings, AudioReport]:
        """Embeds listed utterances straight from audio.

        Args:
            audio_uris: A folder, tar or zip, local or gs:// (see `voxsrc.sources.open_source`), or several.
            utterance_ids: Paths relative to it or to a folder in it, each once.

        Returns:
            The embeddings in the order asked for, and what was resampled or averaged.

        Raises:
            EmbeddingError: If files are missing or cannot be used; names all, and why.
            CorpusError: If the audio as a whole is not what it seems.
        """
        check_unique(utterance_ids)
        utterances = [Utterance(path, "", session_of(path)) for path in utterance_ids]
        if not utterances:
            return Embeddings([], self._empty(0), np.zeros(0, np.int64)), AudioReport()
        with contextlib.closing(open_sources(audio_uris)) as source:
            matching = match_utterances(source, utterances)
            if matching.missing:
                reasons = {utterance.utterance_id: "missing: no such file" for utterance in matching.missing}
                raise _unusable(reasons, len(utterances), source.uri)
            embeddings, report = self.embed_matched(source, matching.pairs)
        if report.reasons:
            raise _unusable(report.reasons, len(utterances), source.uri)
        return embeddings, report

    def embed_matched(
        self, source: Readable, pairs: Sequence[tuple[Utterance, Member]]
    ) -> tuple[Embeddings, AudioReport]:
        """Embeds files of an open source, as `voxsrc.sources` matched them; leaves out what cannot be used.

        Returns:
            The embeddings of usable utterances in the order given, and what was found.

        Raises:
            CorpusError: If the source as a whole is damaged.
        """
        spec, report = self.model.description.spec, AudioReport()
        ids = [utterance.utterance_id for utterance, _ in pairs]
        vectors, num_frames = self._empty(len(pairs)), np.zeros(len(pairs), np.int64)
        cache = self._cache(f"audio-{spec.hash}")
        known = cache.load() if cache else {}
        with self._bar(len(pairs), 0) as bar:

            def to_embed() -> Iterator[HeardUtterance]:
                for heard in read_utterances(source, pairs, spec, known, report):
                    if heard.features is None:
                        vectors[heard.position], num_frames[heard.position] = known[heard.key]
                        bar.update()
                    elif reason := self.length_problem(len(heard.features)):
                        bar.update()
                        report.reasons[ids[heard.position]] = reason
                    else:
                        num_frames[heard.position] = len(heard.features)
                        yield heard

            self._embed_windows(windows_of_audio(to_embed()), ids, vectors, cache, bar)
        usable = [position for position, name in enumerate(ids) if name not in report.reasons]
        kept = vectors if len(usable) == len(ids) else vectors[usable]
        return Embeddings([ids[position] for position in usable], kept, num_frames[usable]), report

    def embed_features(self, features: Float32Array) -> Float32Array:
        """The embedding (D,), or those of the crops (K, D), of one utterance's features (T, F) in nat.

        Raises:
            AudioError: `too_short` or `too_long`, if there are fewer frames than the model needs or too many.
            ConfigError: If F is not the model's.
        """
        if problem := self.length_problem(len(features)):
            raise AudioError(*problem.split(": ", 1))
        with evaluating(self._encoder):
            vectors: Float32Array = self._forward(self.mode.inputs([features]))
        return vectors.reshape(self._row_shape)

    def length_problem(self, num_frames: int) -> str:
        """Why an utterance of so many frames cannot be embedded, as `code: detail`; empty if it can."""
        return self.mode.length_problem(num_frames, self._encoder.min_frames, self._max_frames)

    def _embed_windows(
        self,
        windows: Iterable[Window],
        ids: Sequence[str],
        vectors: Float32Array,
        cache: EmbeddingCache | None,
        bar: "tqdm[Any]",
    ) -> None:
        try:
            with evaluating(self._encoder):
                for window in windows:
                    for places in self.mode.batches(window.num_frames, self._batch_frames):
                        positions = window.positions[places]
                        inputs = self.mode.inputs([window.read(place) for place in places])
                        batch = self._forward(inputs).reshape(len(places), *self._row_shape)
                        _check_finite(batch, [ids[position] for position in positions])
                        vectors[positions] = batch
                        if cache:
                            keys = [window.keys[place] for place in places]
                            cache.add(keys, batch, window.num_frames[places])
                        bar.update(len(places))
        finally:
            if cache:
                cache.flush()

    def _forward(self, inputs_BTF: Float32Array) -> Float32Array:
        # TensorFloat-32 would change embeddings by 1e-3 from one kind of device to another.
        exact = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
        with torch.inference_mode(), exact if self.device.type == "cuda" else contextlib.nullcontext():
            # As the features lie in memory: the encoder reads the transposed view in place.
            features = torch.from_numpy(inputs_BTF).to(self.device).transpose(1, 2)
            embeddings: Float32Array = self._encoder(features).float().cpu().numpy()
        return embeddings

    def _empty(self, num_utterances: int) -> Float32Array:
        return np.empty((num_utterances, *self._row_shape), np.float32)

    def _cache(self, source: str) -> EmbeddingCache | None:
        if self._cache_uri is None:
            return None
        key = CacheKey(self.model.model_hash, source, self.mode.tag, self._row_shape)
        return EmbeddingCache(self._cache_uri, key)

    def _bar(self, total: int, initial: int) -> "tqdm[Any]":
        # A log is not a terminal: there a line every half minute is enough.
        return tqdm(
            total=total,
            initial=initial,
            desc="embedding",
            unit=" utterances",
            mininterval=0.2 if sys.stderr.isatty() else _LOG_INTERVAL_S,
            disable=not self._progress,
        )


def _check_finite(vectors: Float32Array, ids: Sequence[str]) -> None:
    finite = np.isfinite(vectors).all(axis=tuple(range(1, vectors.ndim)))
    if not finite.all():
        broken = {ids[place]: "non_finite: NaN or infinite" for place in np.flatnonzero(~finite).tolist()}
        raise EmbeddingError(
            "the model gives embeddings that are no numbers",
            broken,
            "its training has diverged: take an earlier checkpoint",
        )


def _unusable(reasons: dict[str, str], num_asked: int, uri: str) -> EmbeddingError:
    remedy = "mend them, or leave them out"
    if any(reason.startswith(TOO_LONG) for reason in reasons.values()):
        remedy = f"{remedy}, or embed crops, which may be of recordings of any length (voxsrc embed --crops)"
    return EmbeddingError(
        f"{len(reasons)} of {num_asked} utterances of {uri} cannot be embedded", reasons, remedy
    )
