"""A price file with round numbers, for tests of `voxsrc cost`."""

from typing import Any

_MACHINE = {"machine": "one", "vcpus": 4, "on_demand_usd_per_hour": 4.0, "spot_usd_per_hour": 1.0}
_READ = {"read": "2026-01-02", "source": "list"}


def own_prices() -> dict[str, Any]:
    """Round numbers: the GPU 4 and 1, a core 1 and 0.25, disk and bucket 0.01 a GB and hour."""
    unit = {"usd": 7.3, **_READ}
    return {
        "sources": {"list": "https://example.com/prices"},
        "regions": {
            "here": {
                "gpus": {"L4": {**_MACHINE, **_READ, "num_gpus": [1, 2], "note": "by hand"}},
                "extraction": {**_MACHINE, **_READ},
                "default_pool": {**_MACHINE, **_READ},
                "control_plane_hour": {"usd": 0.5, **_READ, "verified": True},
                "boot_disk_gb_month": unit,
                "bucket_gb_month": unit,
            }
        },
    }
