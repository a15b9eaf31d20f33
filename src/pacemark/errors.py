"""Everything pacemark raises on purpose. The CLI turns each class into one line and an exit code."""


class PacemarkError(Exception):
    """Base of all. The message says what happened, where, and what to do about it."""

    exit_code = 3


class BadInput(PacemarkError):
    """Something the user gave cannot work: a flag, a URL, a key, a model name, a budget."""

    exit_code = 2


class RunFailed(PacemarkError):
    """The run was set up well but could not give a result."""

    exit_code = 3


class Unreachable(RunFailed):
    """The endpoint cannot be reached any more, whatever the load."""


class Failed(PacemarkError):
    """A condition that was to fail the command holds."""

    exit_code = 1


class Undecided(PacemarkError):
    """Whether a condition that was to fail the command holds cannot be told yet."""

    exit_code = 4


class Stopped(PacemarkError):
    """A run was stopped early and has told what it has; the exit code says by which signal."""

    exit_code = 130
