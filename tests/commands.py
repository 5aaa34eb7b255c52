"""What a command of the project returned and printed, for tests that run one in their own process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from corpora import Corpus

NUM_SHARDS = 6


@dataclass(frozen=True)
class Outcome:
    """Exit code, standard output and standard error."""

    code: int
    output: str
    errors: str

    @property
    def error(self) -> str:
        """The one line that begins with `error: `, without it."""
        [line] = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        return line.removeprefix("error: ")


Command = Callable[..., Outcome]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file below a folder: equal only if nobody has written it again."""
    files = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (status.st_ino, status.st_mtime_ns) for path, status in files.items()}


def extractor_options(corpus: Corpus, output: Path) -> list[str]:
    """The options that make `feature-extractor` extract a corpus into `NUM_SHARDS` shards."""
    where = ["--audio", corpus.audio, "--list", corpus.list, "--output", str(output)]
    return [*where, "--num-shards", str(NUM_SHARDS)]
