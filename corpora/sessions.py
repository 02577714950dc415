"""Rows that were understood become sessions in speaking order."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from corpora.dialogue import Dialogue, Speaker, Utterance
from corpora.findings import Findings

MIN_SESSIONS = 3
"""Train, valid and test need one session each."""

_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True)
class TurnRow:
    """One row of a corpus file: who says what, and where it stands."""

    file: str
    line: int
    session: str
    turn: int
    speaker: Speaker
    text: str
    """Empty where the row holds no utterance: it counts in the numbering, then is left out."""
    act: str | None


def session_key(session: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts `2` before `10`, and `s2` before `s10`."""
    parts: list[tuple[int, int, str]] = []
    for part in _DIGITS.split(session):
        if part.isdecimal():
            digits = part.lstrip("0")
            parts.append((0, len(digits), digits))
        elif part:
            parts.append((1, 0, part))
    # The name itself settles `01` against `1`.
    return (*parts, (-1, 0, session))


def assemble(
    rows: Iterable[TurnRow], findings: Findings, *, numbered: bool
) -> tuple[Dialogue, ...]:
    """Sessions in order, each with its utterances in order.

    Args:
        rows: every row of the corpus, in any order.
        findings: gets turns that stand twice (an error) and orders that had to be repaired.
        numbered: whether turn numbers count utterances, so that a gap means a row is missing.

    Returns:
        The sessions in which anything is said.
    """
    sessions: dict[str, dict[int, TurnRow]] = {}
    latest: dict[tuple[str, str], int] = {}
    for row in rows:
        turns = sessions.setdefault(row.session, {})
        first = turns.setdefault(row.turn, row)
        if first is not row:
            findings.error(
                row.file,
                f"line {row.line}",
                "a turn must stand once in its session, "
                f"but it also stands in {first.file}, line {first.line}",
                f"session {row.session}, turn {row.turn}",
            )
        if row.turn < latest.get((row.file, row.session), 0):
            findings.oddity(
                row.file,
                f"line {row.line}",
                "a row before its turn was put in order by number",
                f"session {row.session}, turn {row.turn}",
            )
        latest[row.file, row.session] = row.turn
    if numbered:
        for turns in sessions.values():
            _note_gaps(turns, findings)
    return tuple(
        Dialogue(session, utterances)
        for session in sorted(sessions, key=session_key)
        if (utterances := _utterances(sessions[session]))
    )


def check_usable(source: str, dialogues: Sequence[Dialogue], findings: Findings) -> None:
    """Note what makes a corpus useless as a whole: one speaker only, or too few sessions."""
    speakers = {utterance.speaker for dialogue in dialogues for utterance in dialogue.utterances}
    if len(speakers) == 1:
        (speaker,) = speakers
        findings.error(
            source, "", "both sides must speak somewhere in a corpus", f"only the {speaker}"
        )
    if len(dialogues) < MIN_SESSIONS:
        names = ", ".join(dialogue.session for dialogue in dialogues)
        findings.error(
            source,
            "",
            f"a corpus must have at least {MIN_SESSIONS} sessions (it is split by session), "
            f"but has {len(dialogues)}",
            names,
        )


def content_hash(dialogues: Iterable[Dialogue]) -> str:
    """SHA-256 over sessions, turns, speakers, acts and texts, in that order; paths play no part."""
    digest = hashlib.sha256()
    for dialogue in dialogues:
        for said in dialogue.utterances:
            row = [dialogue.session, said.turn, said.speaker, said.act, said.text]
            digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _utterances(turns: dict[int, TurnRow]) -> tuple[Utterance, ...]:
    ordered = (turns[turn] for turn in sorted(turns))
    return tuple(
        Utterance(turn=row.turn, speaker=row.speaker, text=row.text, act=row.act)
        for row in ordered
        if row.text
    )


def _note_gaps(turns: dict[int, TurnRow], findings: Findings) -> None:
    ordered = sorted(turns)
    for before, after in pairwise(ordered):
        if after != before + 1:
            row = turns[after]
            findings.oddity(
                row.file,
                f"line {row.line}",
                "turn numbers skip some: rows may be missing",
                f"session {row.session}, turn {after} after {before}",
            )
