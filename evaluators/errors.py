"""The root of every error of this room."""

from __future__ import annotations

from search_spaces.errors import InputError


class EvaluationError(InputError, ValueError):
    """Replies cannot be generated or scored as asked; says what is missing and how to get it."""
