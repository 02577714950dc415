"""The twelve dialogue acts of the HOPE corpus, and the ways in which its files spell them.

Source: Malhotra et al., "Speaker and Time-aware Joint Contextual Learning for Dialogue-act
Classification in Counselling Conversations", WSDM 2022, table 1.
"""

from __future__ import annotations

import re

ACTS: dict[str, str] = {
    "irq": "information request",
    "ynq": "yes/no question",
    "crq": "clarification request",
    "orq": "opinion request",
    "id": "information delivery",
    "cd": "clarification delivery",
    "od": "opinion delivery",
    "op": "positive answer",
    "on": "negative answer",
    "gt": "greeting",
    "ack": "acknowledgement",
    "gc": "general chat",
}
"""Canonical label to its meaning, in the order of every table."""

UNKNOWN_ACT = "unknown"
"""Stands for a label that is none of the twelve."""

_SPELLINGS: dict[str, str] = {
    **{act: act for act in ACTS},
    "yq": "ynq",
    "yna": "op",
    "pa": "op",
    "na": "on",
    "o": "od",
    "irrq": "irq",
    "urq": "orq",
    "acak": "ack",
    "in": "id",
    "cdd": "cd",
}
_SEPARATORS = re.compile(r"[,;/\s]+")


def canonical_act(cell: str) -> str | None:
    """The canonical label of an act cell.

    Letter case and spaces are ignored. Of several labels (`id, op`), the first counts.

    Args:
        cell: the cell as written.

    Returns:
        One of `ACTS`, `unknown` for a stray label, None for an empty cell.
    """
    labels = act_labels(cell)
    if not labels:
        return None
    return _SPELLINGS.get(labels[0], UNKNOWN_ACT)


def act_labels(cell: str) -> tuple[str, ...]:
    """The labels in an act cell, in lower case and as spelt."""
    text = cell.casefold()
    # A label may be spelt with a space inside (`yn q`); no two labels run together make a third.
    joined = "".join(text.split())
    if joined in _SPELLINGS:
        return (joined,)
    return tuple(label for label in _SEPARATORS.split(text) if label)
