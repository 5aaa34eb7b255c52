"""The lines of a bill: US dollars for hours of machines and of everything that runs beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from voxsrc.cost.assumptions import Assumption
from voxsrc.cost.prices import HOURS_PER_MONTH, MachinePrice, RegionPrices

# One mean, or (N,) simulated runs.
Amount: TypeAlias = float | NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What things cost for one request.

    Attributes:
        region: Its prices.
        machine: The GPU machine's price, for one GPU.
        num_gpus: In the machine.
        values: The assumptions, by key.
    """

    region: RegionPrices
    machine: MachinePrice
    num_gpus: int
    values: Mapping[str, Assumption]

    def lines(
        self, wall_h: Amount, spot_h: Amount, on_demand_h: Amount, *, extracts_on_spot: bool
    ) -> dict[str, Amount]:
        """US dollars by what they are for.

        Args:
            wall_h: From submission to the end: how long cluster and storage are there.
            spot_h: Billed hours of the GPU machine on Spot.
            on_demand_h: And on demand.
            extracts_on_spot: Whether features are extracted on Spot machines, too.
        """
        machine, region = self.machine, self.region
        core = region.extraction
        core_usd = core.spot_usd_per_hour if extracts_on_spot else core.on_demand_usd_per_hour
        gb_usd = region.boot_disk_gb_month.usd / HOURS_PER_MONTH
        pool_machine_usd = region.default_pool.on_demand_usd_per_hour + self._value("pool_disk_gb") * gb_usd
        bucket_usd = self._value("storage_gb") * region.bucket_gb_month.usd / HOURS_PER_MONTH
        return {
            "GPU machine": self.num_gpus
            * (machine.spot_usd_per_hour * spot_h + machine.on_demand_usd_per_hour * on_demand_h),
            "its disk": self._value("boot_disk_gb") * gb_usd * (spot_h + on_demand_h),
            "extraction": self._value("extract_core_hours") * core_usd / core.vcpus,
            "control plane": region.control_plane_hour.usd * wall_h,
            "default pool": self._value("pool_machines") * pool_machine_usd * wall_h,
            "bucket": bucket_usd * wall_h,
        }

    def sources(self, gpu: str) -> list[Assumption]:
        """Each price that is used, with where it was read."""
        prices = {
            f"gpus.{gpu}": self.machine,
            **{key: price for key, price in self.region.readings().items() if not key.startswith("gpus.")},
        }
        found = []
        for key, price in prices.items():
            basis = f"{price.source}, {price.read}{'' if price.verified else ', not verified'}"
            basis += f"; {price.note}" if price.note else ""
            if isinstance(price, MachinePrice):
                basis = f"{price.machine}; {basis}"
                amounts = {"on_demand_usd_per_hour": price.on_demand_usd_per_hour}
                if key != "default_pool":  # which always runs, so never on Spot
                    amounts["spot_usd_per_hour"] = price.spot_usd_per_hour
            else:
                amounts = {"usd": price.usd}
            found += [Assumption(f"{key}.{name}", usd, "price file", basis) for name, usd in amounts.items()]
        return found

    def _value(self, key: str) -> float:
        return self.values[key].value
