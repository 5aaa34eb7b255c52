"""The exceptions that this project raises on purpose; `main()` turns them into one line and an exit code.

A message names the file or field, what was found, what was expected, and what to do.
"""


class VoxsrcError(Exception):
    """Base of all expected errors."""


class StorageError(VoxsrcError):
    """A file, object or bucket could not be read or written."""


class NotFoundError(StorageError):
    """The file, object or bucket does not exist."""


class PermissionDeniedError(StorageError):
    """No credentials, or credentials without the right that was needed."""


class PreconditionFailedError(StorageError):
    """Somebody else wrote the object first (its generation is not the expected one)."""


class AudioError(VoxsrcError):
    """One recording cannot be used; `reason` is a short stable code for counting (see `voxsrc.audio`)."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class CorpusError(VoxsrcError):
    """A list of utterances or trials, or a folder or archive of audio, is not as expected."""


class FeatureSetError(VoxsrcError):
    """A feature set is incomplete, damaged, or made with another `FbankSpec` than asked for."""


class ConfigError(VoxsrcError):
    """An option or a field of a configuration file has a value that cannot be used."""
