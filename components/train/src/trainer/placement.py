"""Where the frames of a feature set are held while training: GPU memory, RAM, or a memory map."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from voxsrc.errors import ConfigError

Placement = Literal["gpu", "ram", "mmap"]

_PLACEMENTS = ("auto", "gpu", "ram", "mmap")
# What the process itself, the other processes and the page cache of everything else need of the RAM.
_RAM_SHARE = 0.8
_CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How the features reach the device.

    Attributes:
        placement: `gpu`, `ram` or `mmap`; `auto` takes the first of these that has room.
        gpu_reserve: Share of the whole GPU memory that `auto` leaves to the training itself.
        prefetch_batches: Batches prepared ahead by a thread; 0 prepares each when it is asked for. None
            is 2 for a GPU, else 0: a memory map's pages are asked for two batches ahead without a thread.
        cache_dir: Folder of the memory map's file; None is $VOXSRC_CACHE, else ~/.cache/voxsrc.
    """

    placement: Literal["auto", "gpu", "ram", "mmap"] = "auto"
    gpu_reserve: float = 0.4
    prefetch_batches: int | None = None
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        if self.placement not in _PLACEMENTS:
            raise ConfigError(f"placement is {self.placement!r}; expected {', '.join(_PLACEMENTS)}")
        if not 0 <= self.gpu_reserve < 1:
            raise ConfigError(f"gpu_reserve is {self.gpu_reserve}; expected a share from 0 to below 1")
        if self.prefetch_batches is not None and self.prefetch_batches < 0:
            raise ConfigError(f"prefetch_batches is {self.prefetch_batches}; expected 0 or more, or null")


@dataclass(frozen=True)
class Room:
    """Bytes of memory that can be had.

    Attributes:
        ram: Of the machine or the container, for this process.
        gpu_free: Of the device; 0 without a GPU.
        gpu_total: Of the device, whoever uses it.
    """

    ram: int
    gpu_free: int = 0
    gpu_total: int = 0

    @classmethod
    def of(cls, device: torch.device, processes_on_node: int = 1) -> "Room":
        """What there is now; RAM is shared out to the training processes of the machine."""
        ram = int(available_ram_bytes() * _RAM_SHARE) // processes_on_node
        if device.type != "cuda":
            return cls(ram)
        free, total = torch.cuda.mem_get_info(device)
        return cls(ram, free, total)


def choose_placement(
    config: DataConfig, num_bytes: int, device: torch.device, room: Room
) -> tuple[Placement, str]:
    """Where to hold `num_bytes` of frames, and why, in words.

    Raises:
        ConfigError: If the forced placement has no room, or is a GPU that training does not use.
    """
    forced = config.placement
    reserve = int(config.gpu_reserve * room.gpu_total)
    if forced == "gpu" and device.type != "cuda":
        raise ConfigError(f"data.placement is gpu, but the device is {device}; set it to auto, ram or mmap")
    limits = {"gpu": room.gpu_free, "ram": room.ram}
    if forced in limits and num_bytes > limits[forced]:
        raise ConfigError(
            f"data.placement is {forced}, where {_gigabytes(limits[forced])} are free; the feature set needs "
            f"{_gigabytes(num_bytes)}: set it to auto or mmap"
        )
    if forced != "auto":
        return forced, "as set"
    if device.type == "cuda" and num_bytes <= room.gpu_free - reserve:
        why = f"{_gigabytes(room.gpu_free)} free on {device}, {_gigabytes(reserve)} kept for the training"
        return "gpu", why
    lacking = ""
    if device.type == "cuda":
        lacking = f"{device} has {_gigabytes(room.gpu_free)} free and {_gigabytes(reserve)} are kept; "
    if num_bytes <= room.ram:
        return "ram", f"{lacking}{_gigabytes(room.ram)} of RAM to be had"
    return "mmap", f"{lacking}only {_gigabytes(room.ram)} of RAM to be had"


def available_ram_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that can be had without swapping, of the machine or, if less, of this container's limit."""
    available = _machine_bytes(proc / "meminfo")
    for limit_file, usage_file, stat_file in _CGROUP_FILES:
        try:
            limit = (cgroup / limit_file).read_text().strip()
            usage = int((cgroup / usage_file).read_text())
            stat = dict(line.split() for line in (cgroup / stat_file).read_text().splitlines())
        except FileNotFoundError:
            continue
        if limit != "max":
            # Pages of files count as used, but are given up when memory is asked for.
            reclaimable = int(stat.get("inactive_file", "0"))
            available = min(available, max(int(limit) - usage + reclaimable, 0))
        break
    return available


def _machine_bytes(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(kilobytes) * 1024


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
