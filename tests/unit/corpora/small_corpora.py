"""Small corpora that tests write for themselves."""

from __future__ import annotations

from pathlib import Path

from corpora.dialogue import Corpus
from corpora.read import read_corpus
from search_spaces.spec import ColumnMapping, CorpusSpec

HOPE_HEADER = "ID,Type,Utterance,Dialog_Act"
HOPE_ROWS = (
    "1_0,T,Hello there.,gt",
    "1_1,P,I slept badly.,id",
    '1_2,T,"What, again?",crq',
    "2_0,P,Hi.,gt",
    "2_1,T,How was the week?,irq",
    "3_0,P,It rained.,id",
    "3_1,P,All day.,id",
    "3_2,T,I saw.,ack",
)

ANNOMI_HEADER = (
    "transcript_id,mi_quality,utterance_id,interlocutor,utterance_text,"
    "main_therapist_behaviour,client_talk_type"
)
ANNOMI_ROWS = (
    "0,high,0,therapist,How are you?,question,n/a",
    "0,high,1,client,Fine.,n/a,neutral",
    "0,high,2,therapist,So all is well.,reflection,n/a",
    "1,low,0,client,I might stop.,n/a,change",
    "1,low,1,therapist,Good.,other,n/a",
    "2,low,0,client,I like it.,n/a,sustain",
    "2,low,1,therapist,I see.,reflection,n/a",
)


def hope(*rows: str, header: str = HOPE_HEADER) -> str:
    """A HOPE file: the usual eight rows, then `rows`."""
    return "\n".join((header, *HOPE_ROWS, *rows)) + "\n"


def annomi(*rows: str, header: str = ANNOMI_HEADER) -> str:
    """An AnnoMI file: the usual seven rows, then `rows`."""
    return "\n".join((header, *ANNOMI_ROWS, *rows)) + "\n"


def write(path: Path, text: str) -> Path:
    """Write text byte for byte as given, in UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def read(path: Path, columns: ColumnMapping | None = None) -> Corpus:
    return read_corpus(CorpusSpec(corpus=str(path), columns=columns))


def problems(corpus: Corpus) -> str:
    return "\n".join(str(problem) for problem in corpus.problems)
