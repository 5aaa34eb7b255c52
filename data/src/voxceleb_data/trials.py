"""VoxCeleb's own lists, trials and utterances, fetched by URL and checked against what is published."""

import re
import time
from collections.abc import Callable, Sequence

from voxceleb_data.official import LIST_BASE_URLS
from voxceleb_data.origins import BrokenTransferError, Credentials, Origin, open_origin
from voxsrc import storage
from voxsrc.errors import CorpusError, NotFoundError, StorageError
from voxsrc.trial_lists import OfficialList, md5_of

_TRIAL = re.compile(rb"[01] \S+/\S+ \S+/\S+")
_UTTERANCE = re.compile(rb"\S+ \S+/\S+")
_MAX_ATTEMPTS = 4


def fetch(
    item: OfficialList,
    output: str,
    *,
    base_urls: Sequence[str] = LIST_BASE_URLS,
    report: Callable[[str], None] = print,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Brings a list to `output` unless it is there, byte for byte as published.

    Args:
        item: Which list.
        output: Folder or bucket that receives it under `item.output_name`.
        base_urls: Where to look, in this order: http(s)://, gs:// or a folder.
        report: Receives one line for each event worth telling.
        pause: Waits the given seconds between attempts.

    Returns:
        The URI of the list.

    Raises:
        CorpusError: If what was fetched is not the published list; nothing is written.
        StorageError: If no base URL has it.
    """
    uri = storage.join(output, item.output_name)
    if storage.exists(uri) and problem_of(storage.read_bytes(uri), item) is None:
        report(f"{uri}: {item.note}, there already")
        return uri
    failures = []
    for base_url in base_urls:
        origin = open_origin(base_url, Credentials())
        try:
            content = _read(origin, item.file_name, pause)
        except StorageError as error:
            failures.append(str(error))
            continue
        problem = problem_of(content, item)
        if problem:
            failures.append(f"{origin.address(item.file_name)}: {problem}")
            continue
        storage.write_bytes(uri, content)
        report(f"{uri}: {item.note}, {item.num_lines:,} lines, {_how_checked(content, item)}")
        return uri
    raise CorpusError(
        f"{item.name} could not be fetched: {'; '.join(failures)}. "
        f"Give the place of {item.file_name} with --base-url"
    )


def problem_of(content: bytes, item: OfficialList) -> str | None:
    """What is wrong with a list's bytes, None if they are the published list.

    Counts and form decide. A published MD5 decides too where two projects agree on it.
    """
    pattern = _TRIAL if item.kind == "trials" else _UTTERANCE
    lines = content.splitlines()
    for number, line in enumerate(lines, start=1):
        if not pattern.fullmatch(line.rstrip()):
            form = "1|0 path path" if item.kind == "trials" else "speaker path"
            return f"line {number} is {line[:60].decode(errors='replace')!r}, expected `{form}`"
    if len(lines) != item.num_lines:
        return f"{len(lines):,} lines, expected {item.num_lines:,}; is it another version of the list?"
    num_targets = sum(line.startswith(b"1") for line in lines)
    if item.kind == "trials" and num_targets != item.num_targets:
        return f"{num_targets:,} target trials, expected {item.num_targets:,}; is it another version?"
    found = md5_of(content)
    if item.md5_sources >= 2 and found != item.md5:
        return f"MD5 {found}, expected {item.md5}"
    return None


def _how_checked(content: bytes, item: OfficialList) -> str:
    if item.md5 is None:
        return "count and form as published (no checksum is published)"
    if md5_of(content) == item.md5:
        return "MD5 as published"
    return (
        f"counts as published; its MD5 {md5_of(content)} is not the {item.md5} that one project gives, "
        "which nobody confirms"
    )


def _read(origin: Origin, name: str, pause: Callable[[float], None]) -> bytes:
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        try:
            return b"".join(origin.open(name, 0).chunks)
        except BrokenTransferError:
            if attempt == _MAX_ATTEMPTS:
                raise
            pause(2.0 ** (attempt - 1))
    raise NotFoundError(origin.address(name))
