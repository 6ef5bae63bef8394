"""When what happens every so many iterations happens."""

from __future__ import annotations


def is_due(iteration: int, period: int, max_iter: int) -> bool:
    """Whether it happens after ``iteration``: every ``period`` iterations (0: never), and after the last one."""
    done = iteration + 1
    return done >= max_iter or (period > 0 and done % period == 0)
