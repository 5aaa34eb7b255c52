"""Extraction of shards: audio → waveform → log-mel → bytes, by one process or several.

Workers take shards in order, so that each reads a compressed tar in one forward pass; which worker makes
which shard, and when, leaves no trace in the bytes.
"""

import hashlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_connections
from multiprocessing.sharedctypes import Synchronized

from feature_extractor.options import copy_name
from feature_extractor.plan import Plan, PlannedUtterance, PlanRows, read_plan, shard_key
from voxsrc.audio import change_speed, decode
from voxsrc.command import configure_logging
from voxsrc.errors import AudioError, VoxsrcError
from voxsrc.feature_set.shard import ShardRecord, ShardWriter, read_valid_record
from voxsrc.features.scipy_log_mel import LogMelExtractor
from voxsrc.sources import Readable, open_sources

_POLL_S = 0.2
_CHECKS_AT_A_TIME = 16
_UTTERANCES_PER_REPORT = 16
_NO_MEMORY = "not enough memory for its features; cut it into parts, or give a smaller --num-workers"


@dataclass(frozen=True)
class Progress:
    """What has been done since the last report.

    Attributes:
        num_utterances: Utterances read, rejected ones included.
        seconds: Audio turned into features, speed-perturbed copies included.
        num_shards: Shards finished.
        resumed: Whether an earlier run did this.
    """

    num_utterances: int
    seconds: float
    num_shards: int
    resumed: bool = False


class ShardMaker:
    """Makes the shards of one plan; holds the open audio and the buffers. One to a process."""

    def __init__(self, output_uri: str) -> None:
        self._output_uri = output_uri
        self.plan = read_plan(output_uri)
        self._rows = PlanRows(output_uri, self.plan)
        self._log_mel = LogMelExtractor(self.plan.options.spec)
        self._source: Readable | None = None

    def make(self, shard: int, on_utterance: Callable[[float], None]) -> ShardRecord:
        """Makes and writes one shard.

        Args:
            shard: Its number.
            on_utterance: Called with the seconds of audio of each utterance.

        Raises:
            CorpusError: If the audio archive as a whole is damaged.
            StorageError: If the audio cannot be read or the shard not written.
        """
        utterances = self._rows.shard(shard)
        writer = ShardWriter(self.plan.options.encoding, shard_key(self.plan, utterances))
        if self._source is None:
            self._source = open_sources(self.plan.options.audio_uris)
        contents = self._source.read_all(planned.member for planned in utterances)
        for planned, content in zip(utterances, contents, strict=True):
            on_utterance(self._add(writer, planned, content))
        return writer.write(self._output_uri, shard)

    def unfinished(self, shards: Sequence[int]) -> list[int]:
        """Those of the shards that are still to be made, in order."""
        ordered = sorted(shards)
        keys = [shard_key(self.plan, self._rows.shard(shard)) for shard in ordered]

        def is_finished(shard: int, key: str) -> bool:
            return read_valid_record(self._output_uri, shard, key) is not None

        # A bucket answers in some 30 ms, and a large set has a thousand shards.
        with ThreadPoolExecutor(_CHECKS_AT_A_TIME) as pool:
            finished = pool.map(is_finished, ordered, keys)
            return [shard for shard, done in zip(ordered, finished, strict=True) if not done]

    def close(self) -> None:
        """Closes the audio."""
        if self._source:
            self._source.close()

    def _add(self, writer: ShardWriter, planned: PlannedUtterance, content: bytes | AudioError) -> float:
        """Adds an utterance and its speed-perturbed copies, or rejects all; returns seconds of audio."""
        options, utterance = self.plan.options, planned.utterance
        rate_hz = options.spec.sample_rate_hz
        try:
            if isinstance(content, AudioError):
                raise content
            recording = decode(content, sample_rate_hz=rate_hz, min_duration_s=options.min_duration_s)
            copies = [(utterance.utterance_id, utterance.speaker_id, recording.waveform)]
            copies += [
                (
                    copy_name(utterance.utterance_id, speed),
                    copy_name(utterance.speaker_id, speed),
                    change_speed(recording.waveform, speed),
                )
                for speed in options.speeds
            ]
            features = [
                self._log_mel(waveform, dither_seed=_dither_seed(utterance_id))
                for utterance_id, _, waveform in copies
            ]
        except AudioError as error:
            writer.reject(utterance.utterance_id, utterance.speaker_id, error.reason, error.detail)
            return 0.0
        except MemoryError:
            # One recording of many hours must not end the extraction of a million others.
            writer.reject(utterance.utterance_id, utterance.speaker_id, "too_large", _NO_MEMORY)
            return 0.0
        counts = writer.record.counts
        if recording.source_rate_hz != rate_hz:
            counts.resampled_utterances += 1
            is_low = recording.source_rate_hz / 2 < options.spec.high_hz
            counts.low_rate_utterances = (counts.low_rate_utterances or 0) + is_low
        counts.downmixed_utterances += recording.num_channels > 1
        counts.limited_samples += recording.num_clipped
        for (utterance_id, speaker_id, waveform), log_mel in zip(copies, features, strict=True):
            writer.add(utterance_id, speaker_id, utterance.session_id, log_mel, len(waveform))
        return sum(len(waveform) for _, _, waveform in copies) / rate_hz


def extract_shards(
    output_uri: str, shards: Sequence[int], num_workers: int, on_progress: Callable[[Progress], None]
) -> int:
    """Makes those of the given shards that are not finished yet.

    Args:
        output_uri: Where the plan is and the shards go.
        shards: Their numbers.
        num_workers: Processes; 1 works in this one.
        on_progress: Called often.

    Returns:
        How many shards were made now.

    Raises:
        VoxsrcError: What a shard raised, or if a worker died; finished shards stay.
    """
    maker = ShardMaker(output_uri)
    try:
        unfinished = maker.unfinished(shards)
        _report_finished(maker.plan, shards, unfinished, on_progress)
        if num_workers <= 1 or len(unfinished) <= 1:
            _extract_here(maker, unfinished, on_progress)
        else:
            _extract_in_processes(output_uri, unfinished, min(num_workers, len(unfinished)), on_progress)
    finally:
        maker.close()
    return len(unfinished)


def _report_finished(
    plan: Plan, shards: Sequence[int], unfinished: Sequence[int], on_progress: Callable[[Progress], None]
) -> None:
    finished = set(shards) - set(unfinished)
    on_progress(
        Progress(sum(plan.shard_sizes[shard] for shard in finished), 0.0, len(finished), resumed=True)
    )


class _Batched:
    """Hands on counts of utterances a few at a time: to report each would cost as much as to read it."""

    def __init__(self, report: Callable[[int, float], None]) -> None:
        self._report = report
        self._num_utterances, self._seconds = 0, 0.0

    def add(self, seconds: float) -> None:
        """Counts one utterance of so many seconds."""
        self._num_utterances += 1
        self._seconds += seconds
        if self._num_utterances >= _UTTERANCES_PER_REPORT:
            self.flush()

    def flush(self) -> None:
        """Reports what has been counted."""
        self._report(self._num_utterances, self._seconds)
        self._num_utterances, self._seconds = 0, 0.0


def _extract_here(maker: ShardMaker, shards: Sequence[int], on_progress: Callable[[Progress], None]) -> None:
    done = _Batched(lambda num_utterances, seconds: on_progress(Progress(num_utterances, seconds, 0)))
    for shard in shards:
        maker.make(shard, done.add)
        done.flush()
        on_progress(Progress(0, 0.0, 1))


def _extract_in_processes(
    output_uri: str, shards: Sequence[int], num_workers: int, on_progress: Callable[[Progress], None]
) -> None:
    # A fork server imports SciPy and FFmpeg once; its children have no threads or clients of ours.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["feature_extractor.extraction"])
    utterances_done, seconds_done = context.Value("q", 0), context.Value("d", 0.0)
    reported = Progress(0, 0.0, 0)

    def report(num_shards: int) -> Progress:
        now = Progress(utterances_done.value, seconds_done.value, num_shards)
        on_progress(
            Progress(
                now.num_utterances - reported.num_utterances,
                now.seconds - reported.seconds,
                now.num_shards - reported.num_shards,
            )
        )
        return now

    with ProcessPoolExecutor(
        num_workers, context, _start_worker, (output_uri, utterances_done, seconds_done)
    ) as pool:
        running: set[Future[None]] = {pool.submit(_make_in_worker, shard) for shard in shards}
        try:
            while running:
                done, running = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                reported = report(reported.num_shards + len(done))
        except (KeyboardInterrupt, SystemExit):
            # Whoever ends this process does not wait until the workers have finished their shards.
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
        except BrokenProcessPool as error:
            raise VoxsrcError(
                "a worker process died, most likely killed for want of memory; finished shards are kept: "
                "run the same command again, with a smaller --num-workers"
            ) from error
        finally:
            for future in running:
                future.cancel()


@dataclass
class _Worker:
    """What a worker process holds between shards."""

    maker: ShardMaker
    utterances_done: "Synchronized[int]"
    seconds_done: "Synchronized[float]"


_worker: _Worker | None = None


def _start_worker(
    output_uri: str, utterances_done: "Synchronized[int]", seconds_done: "Synchronized[float]"
) -> None:
    global _worker
    configure_logging()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _worker = _Worker(ShardMaker(output_uri), utterances_done, seconds_done)


def _die_with_parent() -> None:
    """Ends this process when the one that started it is gone, killed perhaps, and nobody wants its work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_connections([parent.sentinel])
        os._exit(1)


def _make_in_worker(shard: int) -> None:
    if _worker is None:
        raise RuntimeError("the worker was not started by _start_worker")
    worker = _worker

    def report(num_utterances: int, seconds: float) -> None:
        with worker.utterances_done.get_lock():
            worker.utterances_done.value += num_utterances
            worker.seconds_done.value += seconds

    done = _Batched(report)
    worker.maker.make(shard, done.add)
    done.flush()


def _dither_seed(utterance_id: str) -> int:
    return int.from_bytes(hashlib.sha256(utterance_id.encode()).digest()[:8], "big")
