"""The price file: what machines, disks and storage cost in a region, each price with its date and source."""

from dataclasses import dataclass, field, replace
from datetime import date
from importlib import resources
from typing import Literal, Self

from voxsrc import storage
from voxsrc.config import from_mapping, read_yaml, suggestion
from voxsrc.errors import ConfigError

HOURS_PER_MONTH = 730.0  # as Google's price pages count
_PACKAGED = "prices.yaml"


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """Where a price was read.

    Attributes:
        read: The date, such as 2026-07-30, in quotes.
        source: A key of the file's `sources`.
        verified: Read on Google's own page, or a stored copy of it.
        note: What else to know.
    """

    read: str
    source: str
    verified: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        """Raises ConfigError unless the date is one."""
        try:
            date.fromisoformat(self.read)
        except ValueError as error:
            raise ConfigError(f"read is {self.read!r}; expected a date such as '2026-07-30'") from error


@dataclass(frozen=True, kw_only=True)
class UnitPrice(_Reading):
    """A price that Spot does not change.

    Attributes:
        usd: US dollars for the unit that the key names.
    """

    usd: float

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        super().__post_init__()
        if not self.usd >= 0:
            raise ConfigError(f"usd is {self.usd:g}; expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class MachineRates:
    """A machine by the hour; one with GPUs for one GPU, with that GPU's share of cores, memory and SSDs.

    Attributes:
        machine: What it is.
        vcpus: Its cores, or a GPU's share of them, as Google counts them.
        on_demand_usd_per_hour: US dollars.
        spot_usd_per_hour: US dollars; never above on demand.
        num_gpus: How many GPUs one machine may have; empty for machines without.
    """

    machine: str
    vcpus: int
    on_demand_usd_per_hour: float
    spot_usd_per_hour: float
    num_gpus: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        if self.vcpus < 1:
            raise ConfigError(f"vcpus is {self.vcpus}; expected 1 or more")
        for name in ("on_demand_usd_per_hour", "spot_usd_per_hour"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name):g}; expected more than 0")
        if self.spot_usd_per_hour > self.on_demand_usd_per_hour:
            raise ConfigError(
                f"spot_usd_per_hour is {self.spot_usd_per_hour:g}, on_demand_usd_per_hour "
                f"{self.on_demand_usd_per_hour:g}; expected Spot not above on demand: are they swapped?"
            )
        if any(num < 1 for num in self.num_gpus):
            raise ConfigError(f"num_gpus is {list(self.num_gpus)}; expected numbers from 1")


@dataclass(frozen=True, kw_only=True)
class MachinePrice(MachineRates, _Reading):
    """A machine's price, with where it was read.

    Attributes:
        larger: Of those with several GPUs that do not cost as many times one, the price for one GPU of each.
    """

    larger: tuple[MachineRates, ...] = ()

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        MachineRates.__post_init__(self)
        _Reading.__post_init__(self)
        seen = set[int]()
        for rates in self.larger:
            if not rates.num_gpus or not set(rates.num_gpus) <= set(self.num_gpus):
                raise ConfigError(
                    f"larger: num_gpus is {list(rates.num_gpus)}; expected some of {list(self.num_gpus)}"
                )
            for num in rates.num_gpus:
                if num in seen:
                    raise ConfigError(f"larger: {num} GPUs are in it twice; expected one price of them")
                seen.add(num)

    def with_gpus(self, num_gpus: int) -> Self:
        """The same for one GPU of a machine with so many."""
        for rates in self.larger:
            if num_gpus in rates.num_gpus:
                return replace(
                    self,
                    machine=rates.machine,
                    vcpus=rates.vcpus,
                    on_demand_usd_per_hour=rates.on_demand_usd_per_hour,
                    spot_usd_per_hour=rates.spot_usd_per_hour,
                )
        return self


@dataclass(frozen=True, kw_only=True)
class RegionPrices:
    """Prices in one region.

    Attributes:
        gpus: By GPU type.
        extraction: The machine that extracts features, without GPU.
        default_pool: The machine of the pool that always runs: Kubeflow Pipelines and the cluster's own pods.
        control_plane_hour: One cluster for an hour.
        boot_disk_gb_month: Of each node.
        bucket_gb_month: Storage of features and checkpoints.
    """

    gpus: dict[str, MachinePrice]
    extraction: MachinePrice
    default_pool: MachinePrice
    control_plane_hour: UnitPrice
    boot_disk_gb_month: UnitPrice
    bucket_gb_month: UnitPrice

    def __post_init__(self) -> None:
        """Raises ConfigError unless each GPU says how many of it a machine may have."""
        for gpu, price in self.gpus.items():
            if not price.num_gpus:
                raise ConfigError(f"gpus.{gpu}.num_gpus: missing, expected a list such as [1, 2, 4]")

    def readings(self) -> dict[str, UnitPrice | MachinePrice]:
        """All prices by key."""
        return {
            **{f"gpus.{gpu}": price for gpu, price in self.gpus.items()},
            "extraction": self.extraction,
            "default_pool": self.default_pool,
            "control_plane_hour": self.control_plane_hour,
            "boot_disk_gb_month": self.boot_disk_gb_month,
            "bucket_gb_month": self.bucket_gb_month,
        }


@dataclass(frozen=True, kw_only=True)
class Prices:
    """A price file.

    Attributes:
        regions: By name.
        sources: Key to URL, and words.
        currency: Nothing else yet.
        name: The file, for messages; not in it.
    """

    regions: dict[str, RegionPrices]
    sources: dict[str, str]
    currency: Literal["USD"] = "USD"
    name: str = field(default=_PACKAGED, compare=False)

    def __post_init__(self) -> None:
        """Raises ConfigError if there is no region, or a price names a source that is not listed."""
        if not self.regions:
            raise ConfigError("regions: found none, expected one or more")
        for region, prices in self.regions.items():
            for key, price in prices.readings().items():
                if price.source not in self.sources:
                    raise ConfigError(
                        f"regions.{region}.{key}.source is {price.source!r}, which `sources` lacks: "
                        f"{suggestion(price.source, self.sources)}"
                    )

    def region(self, name: str) -> RegionPrices:
        """The prices of a region; raises ConfigError, with what there is."""
        if name not in self.regions:
            raise ConfigError(
                f"{self.name} has no region {name!r}: {suggestion(name, self.regions)}; "
                "give your own file with --prices"
            )
        return self.regions[name]

    def gpu_type(self, region: str, name: str) -> str:
        """The key of a GPU type, also from names such as `l4` and `a100-40gb`, as the node pools have them.

        Raises:
            ConfigError: There is none, with those that there are.
        """
        gpus = self.region(region).gpus
        short = {gpu.casefold().removesuffix("gb"): gpu for gpu in gpus}
        found = short.get(name.casefold().removesuffix("gb"))
        if found is None:
            raise ConfigError(
                f"{self.name} has no GPU {name!r} in {region}: {suggestion(name, gpus)}; "
                "give your own file with --prices"
            )
        return found

    def gpu(self, region: str, name: str, num_gpus: int) -> MachinePrice:
        """The price for one GPU of a machine with so many; raises ConfigError, with what there is."""
        gpu = self.gpu_type(region, name)
        price = self.region(region).gpus[gpu]
        if num_gpus not in price.num_gpus:
            allowed = ", ".join(map(str, price.num_gpus))
            raise ConfigError(f"a machine has {allowed} GPUs of type {gpu}; found --gpus {num_gpus}")
        return price.with_gpus(num_gpus)


def load_prices(uri: str | None = None) -> Prices:
    """Reads a price file, local or gs://, or the one that comes with the package.

    Raises:
        ConfigError: A key is missing or unknown, or a value cannot be used; the message names file and key.
        StorageError: The file cannot be read.
    """
    if uri is None:
        content = resources.files("voxsrc.cost").joinpath(_PACKAGED).read_bytes()
    else:
        content = storage.read_bytes(uri)
    name = uri or _PACKAGED
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not YAML, not even text in UTF-8 ({error})") from error
    fields = read_yaml(text, name)
    if "name" in fields:
        raise ConfigError(f"{name}: name: unknown key; it is the file's own name")
    try:
        return from_mapping(Prices, {**fields, "name": name})
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
