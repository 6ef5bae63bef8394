"""The one kind of error that is the user's to mend: its message says what was wrong, where, and what would be right."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """A config, a file or an argument cannot be used as it is. Tools print the message alone, without a traceback."""

    @classmethod
    def from_problems(cls, where: str, problems: Sequence[str]) -> InputError:
        """One error for all ``problems`` found in ``where``."""
        return cls(f"{where}: {problems[0]}" if len(problems) == 1 else "\n  - ".join([f"{where}:", *problems]))
