"""What the other runs of a name have cost: those that the watched one continues, and any that came later."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from voxsrc.pipelines.kfp_api import KubeflowApi, KubeflowError
from voxsrc.pipelines.run_cost import NameCost, RunCost
from voxsrc.pipelines.submission import ENDED


@dataclass(kw_only=True)
class OtherRuns:
    """Finds the other runs of a name once per watched run, and fetches each once after its end.

    Attributes:
        api: The endpoint.
        price: Prices a run as `GetRun` gives it, at a time; None if that cannot be told.
        ask: Calls the API, and again while its errors may pass.
        warn: Is told of what the API refuses.
    """

    api: KubeflowApi
    price: Callable[[Any, datetime], RunCost | None]
    ask: Callable[[Callable[[], Any]], Any]
    warn: Callable[[str], None]
    _watched: str = ""
    _ids: tuple[str, ...] | None = None
    _ended: dict[str, RunCost | None] = field(default_factory=dict)

    def cost_with(self, run: Any, cost: RunCost | None, now: datetime) -> NameCost | None:
        """The cost of the watched run and all others of its name; None if they cannot be listed.

        Args:
            run: The watched one.
            cost: Its own.
            now: The time, for runs that go on.

        Raises:
            KubeflowError: The API has not answered for an hour.
        """
        if self._watched != run.run_id:
            self._ids = self._listed(run)
            self._watched = str(run.run_id)
        if self._ids is None:
            return None
        costs = [cost, *(self._cost(run_id, now) for run_id in self._ids)]
        known = tuple(cost for cost in costs if cost is not None)
        return NameCost(costs=known, num_unknown=len(costs) - len(known))

    def _listed(self, watched: Any) -> tuple[str, ...] | None:
        name = str(watched.display_name)
        try:
            runs = self.ask(lambda: self.api.find_runs(name))
        except KubeflowError as error:
            if error.passing:
                raise
            self.warn(f"the cost of other runs named {name!r} is not known: {error}")
            return None
        return tuple(str(run.run_id) for run in runs if run.run_id != watched.run_id)

    def _cost(self, run_id: str, now: datetime) -> RunCost | None:
        if run_id in self._ended:
            return self._ended[run_id]
        try:
            run = self.ask(lambda: self.api.get_run(run_id))
        except KubeflowError as error:
            if error.passing:
                raise
            self.warn(f"the cost of run {run_id} is not known: {error}")
            self._ended[run_id] = None
            return None
        cost = self.price(run, now)
        if run.state in ENDED:
            self._ended[run_id] = cost
        return cost
