"""Any CSV or JSONL file whose columns the user names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from corpora.acts import UNKNOWN_ACT, canonical_act
from corpora.cells import SpeakerNames, number_of, session_of, speaker_of, text_of, utterance_of
from corpora.findings import Findings
from corpora.sessions import TurnRow
from corpora.table import Table, pick_column
from search_spaces.spec import ColumnMapping

_NO_ACT = frozenset({"", "n/a", "na", "nan", "none", "null"})


def check_mapping(mapping: ColumnMapping, findings: Findings) -> None:
    """Note a mapping that cannot be meant: one column for two things, one word for both speakers."""
    roles = {
        "session": mapping.session,
        "speaker": mapping.speaker,
        "text": mapping.text,
        "turn": mapping.turn,
        "act": mapping.act,
    }
    named: dict[str, str] = {}
    for role, column in roles.items():
        if column is None:
            continue
        other = named.setdefault(column, role)
        if other != role:
            findings.error(
                "columns",
                role,
                f"each part must have a column of its own, but {other} has it",
                column,
            )
    patient = {name.strip().casefold() for name in mapping.patient}
    for name in mapping.therapist:
        if name.strip().casefold() in patient:
            findings.error(
                "columns", "therapist", "a word must name the patient or the therapist", name
            )
    for role, names in (("patient", mapping.patient), ("therapist", mapping.therapist)):
        if not any(name.strip() for name in names):
            findings.error("columns", role, "at least one word must name the speaker")


def read_rows(
    table: Table, mapping: ColumnMapping, next_turns: Counter[str], findings: Findings
) -> Iterator[TurnRow]:
    """The rows that can be understood; `findings` gets what is wrong with others.

    Labels that HOPE's files use become HOPE's canonical labels; any other is kept in lower case.

    Args:
        table: the file.
        mapping: which column holds what.
        next_turns: the number of each session's next utterance where no column holds turns;
            carried from file to file.
        findings: gets what is wrong.
    """
    names = (mapping.session, mapping.speaker, mapping.text, mapping.turn, mapping.act)
    taken = [name for name in names if name is not None]
    session_column = pick_column(table, (mapping.session,), taken, findings)
    speaker_column = pick_column(table, (mapping.speaker,), taken, findings)
    text_column = pick_column(table, (mapping.text,), taken, findings)
    turn_column = pick_column(table, (mapping.turn,), taken, findings) if mapping.turn else None
    act_column = pick_column(table, (mapping.act,), taken, findings) if mapping.act else None
    if (
        session_column is None
        or speaker_column is None
        or text_column is None
        or (mapping.turn and turn_column is None)
        or (mapping.act and act_column is None)
    ):
        return
    speakers = SpeakerNames(mapping.patient, mapping.therapist)
    for row in table.rows:
        session = session_of(table, row, session_column, findings)
        speaker = speaker_of(table, row, speaker_column, speakers, findings)
        text = utterance_of(table, row, text_column, findings)
        turn: int | None = 0
        if turn_column is not None:
            turn = number_of(table, row, turn_column, findings)
        act: str | None = ""
        if act_column is not None:
            # A key that a JSON object leaves out is an utterance without an act.
            act = text_of(table, row, act_column, findings) if act_column in row.cells else ""
        if session is None or speaker is None or text is None or turn is None or act is None:
            continue
        if turn_column is None:
            turn = next_turns[session]
            next_turns[session] += 1
        yield TurnRow(table.file, row.line, session, turn, speaker, text, _label(act))


def _label(cell: str) -> str | None:
    label = " ".join(cell.casefold().split())
    if label in _NO_ACT:
        return None
    act = canonical_act(label)
    return label if act == UNKNOWN_ACT else act
