"""Characters that do something instead of showing: escaped, so that a name cannot pose as another."""

from __future__ import annotations

import json
import re

_CONTROLS = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # Terminal control, C0 and C1.
    "\u2028-\u202e\u2066-\u2069"  # Line separators; overrides of the writing direction.
    "\ufeff\ufff9-\ufffb"
    "\ud800-\udfff"  # Halves of a character, which no file can hold.
    "\U000e0000-\U000e007f"  # Tags, which are invisible.
    "]"
)


def escape_controls(text: str, keep: str = "") -> str:
    r"""The text with control characters written out, as JSON writes them (``\u001b``, ``\n``).

    Args:
        text: from a file, a name or a message; JSON stays JSON.
        keep: control characters that stay, such as line feeds in a text of several lines.
    """
    lines = text.split("\n") if "\n" in keep else [text]
    if all(line.isprintable() for line in lines):
        return text  # Much the quickest, and nearly always so.
    return _CONTROLS.sub(lambda found: _escape(found[0], keep), text)


def _escape(character: str, keep: str) -> str:
    return character if character in keep else json.dumps(character)[1:-1]
