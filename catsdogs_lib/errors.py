"""The one base of every error that a person can cause or mend.

Each floor derives its few exact children next to the code that raises them. A message is one
sentence or two: what is wrong, where, and what to do about it. The command line prints it without
a traceback and exits with 2.
"""


class CatsdogsError(Exception):
    """Something that the person at the keyboard can mend; ``str()`` says how."""


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

    def __reduce__(self) -> tuple[type["SettingsError"], tuple[str, str]]:
        # Exceptions with more than a message do not survive pickling between processes by themselves.
        return type(self), (self.field, self.problem)
