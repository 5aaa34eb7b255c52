"""What one check before a run found."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that the run needs.

    Attributes:
        what: In a few words.
        state: ok, warning where the run may have to wait or to do without, missing, or unknown where it could
            not be looked up.
        found: What there is.
        remedy: What to run, or do; empty if ok.
    """

    what: str
    state: Literal["ok", "warning", "missing", "unknown"]
    found: str
    remedy: str = ""
