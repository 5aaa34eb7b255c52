"""A number in a file that several add to, each write on the condition that nobody else wrote meanwhile."""

from voxsrc import storage
from voxsrc.errors import PreconditionFailedError


def increment(uri: str, times: int) -> None:
    while times:
        generation = storage.stat(uri).generation
        value = int(storage.read_bytes(uri))
        try:
            storage.write_bytes(uri, b"%d" % (value + 1), if_generation_match=generation)
            times -= 1
        except PreconditionFailedError:
            pass
