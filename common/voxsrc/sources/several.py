"""Several sources as one, such as the archives of VoxCeleb1's two parts."""

from collections.abc import Iterable, Iterator, Sequence

from voxsrc.sources.base import Member, ReadResult, Source


class SeveralSources:
    """Sources whose files are read as if they lay together; a `Member` says by its `source` where it is.

    No utterance may be in two of them: nothing says which one is meant.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self.uri = ", ".join(source.uri for source in sources)

    def read_all(self, members: Iterable[Member]) -> Iterator[ReadResult]:
        """The bytes of each member; see `voxsrc.sources.Readable`."""
        asked = list(members)
        # One stream a source: a bucket's reads ahead, and a compressed tar's does not begin anew.
        streams = {
            index: self.sources[index].read_all([member for member in asked if member.source == index])
            for index in {member.source for member in asked}
        }
        for member in asked:
            yield next(streams[member.source])

    def stamp(self, member: Member) -> int:
        """The stamp that the member would have now."""
        return self.sources[member.source].stamp(member)

    def close(self) -> None:
        """Closes all."""
        for source in self.sources:
            source.close()


def each_source(source: Source | SeveralSources) -> Sequence[Source]:
    """All of several sources; of one, this one."""
    return source.sources if isinstance(source, SeveralSources) else [source]
