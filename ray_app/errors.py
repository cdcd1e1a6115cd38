"""Errors whose text is written for the person who runs the job: no traceback, a fixed exit code."""

from typing import Any


class UserError(Exception):
    """The input, the settings or the surroundings are at fault, and the message says what to do."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message  # Ray Data appends its own advice to `args` of what passes through it

    def __reduce__(self) -> tuple[type["UserError"], tuple[Any]]:
        return type(self), (self.message,)


class ConfigError(UserError):
    """A key or value of the configuration is wrong; one line per fault."""

    exit_code = 2

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults

    def __reduce__(self) -> tuple[type[UserError], tuple[Any]]:
        return type(self), (self.faults,)


class StorageError(UserError):
    """A bucket, credential, endpoint or file cannot be reached; names the URI and the setting to look at."""

    exit_code = 3


class TrainingError(UserError):
    """Training cannot go on (non-finite loss, out of memory); names the step, the phase and the remedy."""

    exit_code = 4


class DataError(UserError):
    """The data cannot be used as it is: wrong columns, too much in quarantine, nothing to train on."""

    exit_code = 5
