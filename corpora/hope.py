"""The HOPE counselling corpus: `ID,Type,Utterance,Dialog_Act`, one file per session or merged.

Source: https://github.com/LCS2-IIITD/SPARTA_WSDM2022 (the files' layout and act labels).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from corpora.acts import UNKNOWN_ACT, act_labels, canonical_act
from corpora.cells import (
    MAX_SESSION_CHARACTERS,
    SpeakerNames,
    speaker_of,
    text_of,
    utterance_of,
)
from corpora.findings import Findings
from corpora.sessions import TurnRow
from corpora.table import Row, Table, matching_columns, pick_column

ID_COLUMN = ("ID",)
SPEAKER_COLUMN = ("Type",)
TEXT_COLUMN = ("Utterance",)
ACT_COLUMN = ("Dialog_Act", "Dialogue_Act", "Dilog_Act")
COLUMNS = (ID_COLUMN, SPEAKER_COLUMN, TEXT_COLUMN, ACT_COLUMN)

SPEAKERS = SpeakerNames(
    patient=("P", "patient", "client"), therapist=("T", "therapist", "counsellor", "counselor")
)
_ID = re.compile(r"(.+)_([0-9]{1,9})")


def recognises(table: Table) -> bool:
    """Whether the header is HOPE's, at most one of its four columns missing or misspelt."""
    return sum(bool(matching_columns(table, names)) for names in COLUMNS) >= len(COLUMNS) - 1


def is_id(cell: str) -> bool:
    """Whether the cell is a row's ID, with a session that is a number."""
    return re.fullmatch(r"[0-9]+_[0-9]+", cell.strip()) is not None


def read_rows(table: Table, findings: Findings) -> Iterator[TurnRow]:
    """The rows of a HOPE file that can be understood; `findings` gets what is wrong with others."""
    taken = [column for names in COLUMNS for column in matching_columns(table, names)]
    id_column = pick_column(table, ID_COLUMN, taken, findings)
    speaker_column = pick_column(table, SPEAKER_COLUMN, taken, findings)
    text_column = pick_column(table, TEXT_COLUMN, taken, findings)
    act_column = pick_column(table, ACT_COLUMN, taken, findings)
    if id_column is None or speaker_column is None or text_column is None or act_column is None:
        return
    for row in table.rows:
        place = _session_and_turn(table, row, id_column, findings)
        speaker = speaker_of(table, row, speaker_column, SPEAKERS, findings)
        text = utterance_of(table, row, text_column, findings)
        act_cell = text_of(table, row, act_column, findings)
        if place is None or speaker is None or text is None or act_cell is None:
            continue
        session, turn = place
        act = _act(table, row, act_column, act_cell, findings) if text else None
        yield TurnRow(table.file, row.line, session, turn, speaker, text, act)


def _session_and_turn(
    table: Table, row: Row, column: str, findings: Findings
) -> tuple[str, int] | None:
    cell = text_of(table, row, column, findings)
    if cell is None:
        return None
    match = _ID.fullmatch(" ".join(cell.split()))
    if match is None or len(match[1]) > MAX_SESSION_CHARACTERS:
        findings.error(
            table.file,
            f"line {row.line}, column {column}",
            "an ID must be <session>_<turn>, as 163_0",
            cell.strip() or "nothing",
        )
        return None
    return match[1], int(match[2])


def _act(table: Table, row: Row, column: str, cell: str, findings: Findings) -> str | None:
    place = f"line {row.line}, column {column}"
    labels = act_labels(cell)
    act = canonical_act(cell)
    if act is None:
        findings.oddity(table.file, place, "an utterance has no dialogue act")
    elif act == UNKNOWN_ACT:
        findings.oddity(
            table.file, place, "a dialogue act is none of the twelve: kept as unknown", labels[0]
        )
    if len(labels) > 1:
        findings.oddity(
            table.file,
            place,
            "a cell holds several dialogue acts: the first counts",
            ", ".join(labels),
        )
    return act
