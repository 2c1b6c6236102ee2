"""The one base of every error that a person can cause or mend.

Each floor derives its few exact children next to the code that raises them. A message is one
sentence or two: what is wrong, where, and what to do about it. The command line prints it without
a traceback and exits with 2.
"""

import copyreg
from typing import Any


class CatsdogsError(Exception):
    """Something that the person at the keyboard can mend; ``str()`` says how."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Between processes it is rebuilt as it is: the constructors of many take other things than the message.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class SettingsError(CatsdogsError):
    """A setting has a value that cannot be used.

    Parameters
    ----------
    field
        Name of the setting, dotted where it is nested.
    problem
        What is wrong with the value and what would be right.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"setting '{field}': {problem}")
        self.field = field
        self.problem = problem
