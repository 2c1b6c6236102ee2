"""Base class of the errors that a user can fix.

Each package derives its own errors beside the code that raises them. A message is one or two
sentences: what is wrong, where, and what to do about it. The command line prints it without a
traceback and exits with status 2.
"""

import copyreg
from typing import Any


class CatsdogsError(Exception):
    """Base class for errors that the user can fix; ``str()`` says how."""

    def __reduce__(self) -> tuple[Any, ...]:
        # For pickling between processes: many subclasses have constructors that take more than the message.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class SettingsError(CatsdogsError):
    """A setting has an invalid value.

    Parameters
    ----------
    field
        Name of the setting, dotted where it is nested.
    problem
        What is wrong with the value, and which values are valid.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"setting '{field}': {problem}")
        self.field = field
        self.problem = problem
