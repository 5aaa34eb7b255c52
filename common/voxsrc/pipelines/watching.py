"""Follows a run until it ends, and survives an API that does not answer for a while."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from voxsrc.errors import VoxsrcError
from voxsrc.pipelines.attempts import Attempt, AttemptsError
from voxsrc.pipelines.cluster import ClusterError
from voxsrc.pipelines.kfp_api import KubeflowApi, KubeflowError
from voxsrc.pipelines.needs import StepNeeds, step_needs
from voxsrc.pipelines.other_runs import OtherRuns
from voxsrc.pipelines.progress import RunProgress, read_progress
from voxsrc.pipelines.run_cost import NameCost, RunCost
from voxsrc.pipelines.submission import ENDED, arguments_of, package_of

POLL_S = 15.0
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 60.0
GIVE_UP_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What is known of a run at one time.

    Attributes:
        at: The time.
        progress: Its steps.
        cost: So far; None where prices or package are not known.
        no_cost: Why `cost` is None.
        name_cost: Of all runs of its name, this one among them; None if they are not known.
        attempts: Pods, as the cluster told; None if it was not asked, or does not answer.
    """

    at: datetime
    progress: RunProgress
    cost: RunCost | None
    no_cost: str
    name_cost: NameCost | None = None
    attempts: tuple[Attempt, ...] | None = None

    @property
    def preemptions(self) -> Counter[str] | None:
        """Attempts that a preemption ended, by step; None if the attempts are not known."""
        return None if self.attempts is None else Counter(a.step for a in self.attempts if a.preempted)

    @property
    def deletions(self) -> Counter[str] | None:
        """Attempts whose pod was deleted, by step; likewise."""
        return None if self.attempts is None else Counter(a.step for a in self.attempts if a.deleted)

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.progress.state in ENDED


@dataclass(kw_only=True)
class Watcher:
    """Follows one run.

    Attributes:
        api: The endpoint.
        run_id: Of the run.
        price: Prices a progress with the needs of its steps at a time; raises VoxsrcError if it cannot.
        attempts: Lists the run's pods, with why they ended; None not to ask.
        warn: Is told, in words, of each failure that is waited out.
        pause: Waits so many seconds.
        clock: Gives the time.
    """

    api: KubeflowApi
    run_id: str
    price: Callable[[RunProgress, list[StepNeeds], datetime], RunCost]
    attempts: Callable[[str], list[Attempt]] | None
    warn: Callable[[str], None]
    pause: Callable[[float], None]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _ended_by: dict[str, Attempt] = field(default_factory=dict)
    _has_no_attempts: bool = False
    _others: OtherRuns | None = None

    def follow(self) -> Iterator[Snapshot]:
        """One snapshot after another, the last one of the ended run.

        Raises:
            KubeflowError: There is no such run, or the API has not answered for an hour.
        """
        while True:
            snapshot = self.look()
            yield snapshot
            if snapshot.has_ended:
                return
            self.pause(POLL_S)

    def turn_to(self, run_id: str) -> None:
        """Follows another run from now on."""
        self.run_id = run_id
        self._ended_by = {}
        self._has_no_attempts = False

    def look(self) -> Snapshot:
        """The run now; as `follow`, waits for an API that does not answer."""
        run = self._patiently(lambda: self.api.get_run(self.run_id))
        now = self.clock()
        progress, cost, no_cost = self._priced(run, now)
        if self._others is None:
            self._others = OtherRuns(
                api=self.api,
                price=lambda other, at: self._priced(other, at)[1],
                ask=self._patiently,
                warn=self.warn,
            )
        return Snapshot(
            at=now,
            progress=progress,
            cost=cost,
            no_cost=no_cost,
            name_cost=self._others.cost_with(run, cost, now),
            attempts=self._attempts(),
        )

    def _priced(self, run: Any, now: datetime) -> tuple[RunProgress, RunCost | None, str]:
        """How far a run is, what it has cost, and why that is not known."""
        package = package_of(run)
        needs: list[StepNeeds] = []
        no_cost = "" if package is not None else "the server does not give the run's pipeline"
        if package is not None:
            try:
                needs = step_needs(package, arguments_of(run))
            except VoxsrcError as error:
                no_cost = str(error)
        progress = read_progress(run, {need.step: need.title for need in needs})
        # a step whose pod is gone may lack an end, and holds no machine after the run's
        until = progress.ended if progress.state in ENDED and progress.ended is not None else now
        cost = None
        if not no_cost:
            try:
                cost = self.price(progress, needs, until)
            except VoxsrcError as error:
                no_cost = str(error)
        return progress, cost, no_cost

    def _attempts(self) -> tuple[Attempt, ...] | None:
        if self.attempts is None or self._has_no_attempts:
            return None
        try:
            found = self.attempts(self.run_id)
        except AttemptsError as error:
            self.warn(str(error))
            self._has_no_attempts = True
            return None
        except ClusterError as error:
            self.warn(str(error))
            return None
        # a workflow is deleted some time after its end; what was seen is kept
        self._ended_by |= {attempt.path: attempt for attempt in found}
        return tuple(self._ended_by.values())

    def _patiently(self, call: Callable[[], Any]) -> Any:
        """The answer of `call`, tried again with growing waits while its errors may pass."""
        wait_s, waited_s, renewed = FIRST_WAIT_S, 0.0, False
        while True:
            try:
                return call()
            except KubeflowError as error:
                if error.status == 401 and not renewed:
                    # tokens last an hour
                    renewed = True
                    call = self._reconnecting(call)
                    continue
                if not error.passing or waited_s >= GIVE_UP_S:
                    raise
                self.warn(f"{str(error).splitlines()[0]} Trying again in {wait_s:.0f} s")
            self.pause(wait_s)
            waited_s += wait_s
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _reconnecting(self, call: Callable[[], Any]) -> Callable[[], Any]:
        def reconnected() -> Any:
            self.api.connect()
            return call()

        return reconnected


def find_run(api: KubeflowApi, name_or_id: str) -> str:
    """The id of the newest run of this name, or of the run with this id; raises KubeflowError."""
    runs = api.find_runs(name_or_id)
    if runs:
        return str(runs[0].run_id)
    try:
        uuid.UUID(name_or_id)
    except ValueError as error:
        raise KubeflowError(
            f"no run is named {name_or_id!r} at {api.endpoint}; expected the --run-name of a submission, or "
            "a run's id"
        ) from error
    return name_or_id
