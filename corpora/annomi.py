"""The AnnoMI corpus of motivational-interviewing sessions, in its simple and its full form.

Source: https://github.com/uccollab/AnnoMI (AnnoMI-simple.csv, AnnoMI-full.csv).
"""

from __future__ import annotations

from collections.abc import Iterator

from corpora.cells import SpeakerNames, number_of, session_of, speaker_of, text_of, utterance_of
from corpora.findings import Findings
from corpora.sessions import TurnRow
from corpora.table import Table, matching_columns, pick_column

SESSION_COLUMN = ("transcript_id",)
TURN_COLUMN = ("utterance_id",)
SPEAKER_COLUMN = ("interlocutor",)
TEXT_COLUMN = ("utterance_text",)
THERAPIST_ACT_COLUMN = ("main_therapist_behaviour", "main_therapist_behavior")
PATIENT_ACT_COLUMN = ("client_talk_type",)
COLUMNS = (
    SESSION_COLUMN,
    TURN_COLUMN,
    SPEAKER_COLUMN,
    TEXT_COLUMN,
    THERAPIST_ACT_COLUMN,
    PATIENT_ACT_COLUMN,
)

SPEAKERS = SpeakerNames(patient=("client", "patient"), therapist=("therapist",))
_NO_ACT = frozenset({"", "n/a", "na", "nan", "none"})


def recognises(table: Table) -> bool:
    """Whether the header is AnnoMI's: its names are so particular that half of them settle it."""
    return 2 * sum(bool(matching_columns(table, names)) for names in COLUMNS) >= len(COLUMNS)


def read_rows(table: Table, findings: Findings) -> Iterator[TurnRow]:
    """The rows of an AnnoMI file that can be understood; `findings` gets what is wrong with others.

    The full form repeats an utterance for each annotator; the first annotation counts.
    """
    taken = [column for names in COLUMNS for column in matching_columns(table, names)]
    session_column = pick_column(table, SESSION_COLUMN, taken, findings)
    turn_column = pick_column(table, TURN_COLUMN, taken, findings)
    speaker_column = pick_column(table, SPEAKER_COLUMN, taken, findings)
    text_column = pick_column(table, TEXT_COLUMN, taken, findings)
    therapist_act_column = pick_column(table, THERAPIST_ACT_COLUMN, taken, findings)
    patient_act_column = pick_column(table, PATIENT_ACT_COLUMN, taken, findings)
    if (
        session_column is None
        or turn_column is None
        or speaker_column is None
        or text_column is None
        or therapist_act_column is None
        or patient_act_column is None
    ):
        return
    seen: dict[tuple[str, int], tuple[str, str]] = {}
    for row in table.rows:
        session = session_of(table, row, session_column, findings)
        turn = number_of(table, row, turn_column, findings)
        speaker = speaker_of(table, row, speaker_column, SPEAKERS, findings)
        text = utterance_of(table, row, text_column, findings)
        therapist_act = text_of(table, row, therapist_act_column, findings)
        patient_act = text_of(table, row, patient_act_column, findings)
        if (
            session is None
            or turn is None
            or speaker is None
            or text is None
            or therapist_act is None
            or patient_act is None
        ):
            continue
        said = (speaker, text)
        if (session, turn) not in seen:
            seen[session, turn] = said
        elif seen[session, turn] == said:
            findings.oddity(
                table.file,
                f"line {row.line}",
                "an utterance stands once for each annotator: the first counts",
            )
            continue
        # Other words under the same number are no annotation but a mistake: they go on, and clash.
        act = therapist_act if speaker == "therapist" else patient_act
        label = " ".join(act.casefold().split())
        yield TurnRow(
            table.file,
            row.line,
            session,
            turn,
            speaker,
            text,
            None if label in _NO_ACT else label,
        )
