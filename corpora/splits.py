"""Which sessions are for training, for choosing and for reporting."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

from corpora.dialogue import CorpusError
from search_spaces.errors import Problem
from search_spaces.spec import SplitSpec

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")

_ROUNDING = 1e-9


def split_sessions(sessions: Sequence[str], split: SplitSpec) -> dict[str, Part]:
    """The part each session belongs to.

    Depends on the sessions' names, the fractions and the seed alone: not on the order of the
    input, nor on any library's random numbers. With one seed, the test sessions stay the same
    when only the other fractions change.

    Args:
        sessions: names of all sessions.
        split: fractions and seed. Fractions that sum to less than 1 leave sessions out.

    Returns:
        Session to part, without sessions that are left out, in the order given.

    Raises:
        CorpusError: where the fractions cannot be, or there are fewer sessions than parts.
    """
    names = list(dict.fromkeys(sessions))
    sizes = _sizes(len(names), split)
    drawn = in_drawn_order(names, split.split_seed)
    parts: dict[str, Part] = {}
    for part in reversed(PARTS):
        for name in drawn[: sizes[part]]:
            parts[name] = part
        drawn = drawn[sizes[part] :]
    return {name: parts[name] for name in names if name in parts}


def in_drawn_order(names: Iterable[str], seed: int) -> list[str]:
    """The names as a lottery would draw them: by the SHA-256 of seed and name."""
    return sorted(
        names, key=lambda name: (hashlib.sha256(f"{seed}:{name}".encode()).digest(), name)
    )


def _sizes(total: int, split: SplitSpec) -> dict[Part, int]:
    """Sessions in each part, by the largest-remainder method; no wanted part stays empty."""
    fractions: dict[Part, float] = {
        "train": split.train_fraction,
        "valid": split.valid_fraction,
        "test": split.test_fraction,
    }
    wanted = [part for part in PARTS if fractions[part] > 0]
    whole = sum(fractions.values())
    stated = ", ".join(f"{part}_fraction={fraction:g}" for part, fraction in fractions.items())
    if not 0 < whole <= 1 + _ROUNDING:
        raise CorpusError(
            [Problem("split", "", f"fractions must sum to more than 0 and at most 1: {stated}")]
        )
    if total < len(wanted):
        raise CorpusError(
            [
                Problem(
                    "split",
                    "",
                    f"each of {len(wanted)} parts must get a session ({stated}), "
                    f"but there are {total}",
                )
            ]
        )
    quotas = {part: fractions[part] * total for part in PARTS}
    sizes = {part: int(quotas[part] + _ROUNDING) for part in PARTS}
    spare = int(whole * total + 0.5) - sum(sizes.values())
    # Equal remainders go to the test part first: it carries the reported numbers.
    by_remainder = sorted(
        wanted, key=lambda part: (round(sizes[part] - quotas[part], 9), -PARTS.index(part))
    )
    for part in by_remainder[: max(spare, 0)]:
        sizes[part] += 1
    for part in wanted:
        if sizes[part] == 0:
            sizes[part] = 1
            if sum(sizes.values()) > total:
                sizes[max(PARTS, key=lambda other: sizes[other])] -= 1
    return sizes
