"""Where audio lies: a folder, a tar (plain, gz, zst) or a zip, local or in a bucket, whole or in parts.

Nothing is unpacked to disk. A `Member` says where one file's bytes are, so that a plan made once lets
many workers each read their own share.
"""

from voxsrc.sources.base import Member, ReadResult, Scan, Source
from voxsrc.sources.matching import Matching, match_all_files, match_utterances
from voxsrc.sources.opening import open_source

__all__ = [
    "Matching",
    "Member",
    "ReadResult",
    "Scan",
    "Source",
    "match_all_files",
    "match_utterances",
    "open_source",
]
