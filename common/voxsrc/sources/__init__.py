"""Where audio lies: a folder, a tar (plain, gz, zst) or a zip, local or in a bucket, whole or in parts.

Several are read as one, see `SeveralSources`.
Nothing is unpacked to disk. A `Member` says where one file's bytes are, so that a plan made once lets
many workers each read their own share.
"""

from voxsrc.sources.base import UNKNOWN_STAMP, Member, Readable, ReadResult, Scan, Source
from voxsrc.sources.matching import Matching, match_all_files, match_utterances, refuse_shared
from voxsrc.sources.opening import audio_uris, open_source, open_sources
from voxsrc.sources.several import SeveralSources

__all__ = [
    "UNKNOWN_STAMP",
    "Matching",
    "Member",
    "ReadResult",
    "Readable",
    "Scan",
    "SeveralSources",
    "Source",
    "audio_uris",
    "match_all_files",
    "match_utterances",
    "open_source",
    "open_sources",
    "refuse_shared",
]
