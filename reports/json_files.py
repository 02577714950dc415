"""JSON files whose content is checked as it is taken out of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Json = Mapping[str, Any]
"""A JSON object, as read."""


class UnusableError(ValueError):
    """A file of the results folder does not hold what it should."""


def read_json(file: Path) -> Any:
    """The JSON value in a file.

    Raises:
        UnusableError: the file is missing, unreadable, not UTF-8 or not JSON; the message says which.
    """
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise UnusableError("no such file") from None
    except OSError as error:
        raise UnusableError(f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UnusableError("not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise UnusableError(f"not JSON ({error.msg} in line {error.lineno})") from error
    except ValueError as error:
        raise UnusableError("not JSON (a number of too many digits)") from error
    except RecursionError as error:
        raise UnusableError("not JSON (nested too deeply)") from error


def as_object(value: object, what: str) -> Json:
    """The value, which must be an object.

    Args:
        value: as read.
        what: how the error names it.
    """
    if not isinstance(value, dict):
        raise UnusableError(f"{what} must be an object")
    return value


def list_at(record: Json, key: str) -> list[Any]:
    """The list under a key."""
    value = record.get(key)
    if not isinstance(value, list):
        raise UnusableError(f"`{key}` must be a list")
    return value


def text_at(record: Json, key: str) -> str:
    """The text under a key, which must not be empty."""
    value = record.get(key)
    if not isinstance(value, str) or not value:
        raise UnusableError(f"`{key}` must be text")
    return value
