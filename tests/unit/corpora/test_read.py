from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

from corpora.acts import ACTS
from corpora.dialogue import CorpusError
from corpora.privacy import find_identifiers
from corpora.read import read_corpus
from search_spaces.spec import ColumnMapping, CorpusSpec
from tests.unit.corpora.small_corpora import (
    ANNOMI_HEADER,
    HOPE_HEADER,
    HOPE_ROWS,
    annomi,
    hope,
    problems,
    read,
    write,
)


def test_sample_is_whole_and_names_nobody() -> None:
    corpus = read_corpus(CorpusSpec())
    utterances = [said for dialogue in corpus.dialogues for said in dialogue.utterances]
    assert corpus.source == "sample"
    assert corpus.format == "hope"
    assert len(corpus.dialogues) >= 48
    assert len(utterances) >= 1200
    assert {said.act for said in utterances} == set(ACTS)
    assert corpus.problems == ()
    assert not any(find_identifiers(said.text) for said in utterances)
    texts = [tuple(said.text for said in dialogue.utterances) for dialogue in corpus.dialogues]
    assert len(set(texts)) == len(texts)


def test_sessions_and_turns_go_by_number(tmp_path: Path) -> None:
    rows = [
        f"{session}_{turn},{'PT'[turn % 2]},s{session} t{turn},id"
        for session in (100, 10, 9, 1)
        for turn in (0, 1, 10, 11, 2, 3)
    ]
    corpus = read(write(tmp_path / "merged.csv", "\n".join((HOPE_HEADER, *sorted(rows)))))
    assert [dialogue.session for dialogue in corpus.dialogues] == ["1", "9", "10", "100"]
    for dialogue in corpus.dialogues:
        assert [said.turn for said in dialogue.utterances] == [0, 1, 2, 3, 10, 11]
        assert [said.text for said in dialogue.utterances][2] == f"s{dialogue.session} t2"
    assert "put in order by number (4 times" in problems(corpus)
    assert "turn numbers skip some" in problems(corpus)


def test_names_with_numbers_sort_naturally(tmp_path: Path) -> None:
    rows = [f"{session}_0,P,a,id\n{session}_1,T,b,id" for session in ("s10", "s2", "s1")]
    corpus = read(write(tmp_path / "a.csv", "\n".join((HOPE_HEADER, *rows))))
    assert [dialogue.session for dialogue in corpus.dialogues] == ["s1", "s2", "s10"]


@pytest.mark.parametrize("act", ["Dialogue_Act", "Dialogue Act", "Dilog_Act", " dialog_ACT "])
def test_header_spellings(tmp_path: Path, act: str) -> None:
    header = f"id, TYPE ,utterance,{act}"
    corpus = read(write(tmp_path / "a.csv", hope(header=header)))
    assert corpus.dialogues[0].utterances[0].act == "gt"


def test_hash_is_of_content_not_of_layout(tmp_path: Path) -> None:
    plain = read(write(tmp_path / "plain.csv", hope()))
    rows = list(csv.reader(io.StringIO(hope())))
    body = rows[1:]
    random.Random(0).shuffle(body)

    quoted = io.StringIO()
    csv.writer(quoted, quoting=csv.QUOTE_ALL, delimiter=";").writerows([rows[0], *body])
    variants = [
        write(tmp_path / "windows.csv", "\ufeff" + hope().replace("\n", "\r\n")),
        write(tmp_path / "mac.csv", hope().replace("\n", "\r")),
        write(tmp_path / "quoted.csv", quoted.getvalue()),
        write(tmp_path / "tabs.tsv", "\n".join("\t".join(row) for row in rows)),
        write(tmp_path / "no_suffix", hope()),
    ]
    for session in "123":
        lines = [row for row in HOPE_ROWS if row.startswith(f"{session}_")]
        write(tmp_path / "folder" / f"{session}.csv", "\n".join((HOPE_HEADER, *lines)))
    for variant in (*variants, tmp_path / "folder"):
        assert read(variant).content_hash == plain.content_hash, variant

    changes = {
        "session": hope().replace("3_", "4_"),
        "turn": hope().replace("3_2", "3_3"),
        "speaker": hope().replace("3_1,P", "3_1,T"),
        "act": hope().replace("rained.,id", "rained.,od"),
        "text": hope().replace("rained", "snowed"),
    }
    hashes = {
        read(write(tmp_path / f"{name}.csv", text)).content_hash for name, text in changes.items()
    }
    assert len(hashes | {plain.content_hash}) == len(changes) + 1


def test_a_folder_says_what_it_leaves_out(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", hope())
    write(tmp_path / "b.xlsx", "PK")
    write(tmp_path / "README.md", "about")
    write(tmp_path / ".hidden.csv", "nonsense")
    write(tmp_path / "more" / "c.csv", "nonsense")
    corpus = read(tmp_path)
    assert len(corpus.problems) == 1
    assert corpus.problems[0].file == str(tmp_path / "b.xlsx")


def test_odd_acts_are_kept_and_counted(tmp_path: Path) -> None:
    corpus = read(
        write(
            tmp_path / "a.csv",
            hope("4_0,P,a,YNA", "4_1,T,b,xyz", "4_2,P,c,", '4_3,T,d," Yq , id"', "4_4,P,e,qq"),
        )
    )
    assert [said.act for said in corpus.dialogues[3].utterances] == [
        "op",
        "unknown",
        None,
        "ynq",
        "unknown",
    ]
    text = problems(corpus)
    assert "line 11, column Dialog_Act" in text
    assert "kept as unknown (2 times, the first here), got 'xyz'" in text
    assert "no dialogue act" in text
    assert "the first counts, got 'yq, id'" in text


def test_text_is_one_clean_line(tmp_path: Path) -> None:
    corpus = read(
        write(
            tmp_path / "a.csv",
            hope('4_0,P,"one\ntwo \t three",id', "4_1,T,fo\x07ur\x0bfive,id", "4_2,P, \u200b ,id"),
        )
    )
    assert [said.text for said in corpus.dialogues[3].utterances] == ["one two three", "four five"]
    text = problems(corpus)
    assert "control characters in an utterance were taken out" in text
    assert "line 13, column Utterance: a row without an utterance was left out" in text
    assert "four" not in text


def test_rows_of_commas_are_no_rows(tmp_path: Path) -> None:
    corpus = read(write(tmp_path / "a.csv", hope("", ",,,", " , , , ")))
    assert sum(len(dialogue.utterances) for dialogue in corpus.dialogues) == len(HOPE_ROWS)


def test_extra_columns_do_not_matter(tmp_path: Path) -> None:
    lines = [f"{index},{line}," for index, line in enumerate(hope().splitlines())]
    text = "\n".join(("," + lines[0].split(",", 1)[1], *lines[1:]))
    assert read(write(tmp_path / "a.csv", text)).content_hash == (
        read(write(tmp_path / "b.csv", hope())).content_hash
    )


def test_annomi(tmp_path: Path) -> None:
    corpus = read(write(tmp_path / "a.csv", annomi()))
    assert corpus.format == "annomi"
    assert [(said.speaker, said.act) for said in corpus.dialogues[0].utterances] == [
        ("therapist", "question"),
        ("patient", "neutral"),
        ("therapist", "reflection"),
    ]
    assert corpus.dialogues[1].utterances[0].act == "change"
    assert corpus.problems == ()


def test_annomi_full_repeats_each_utterance_per_annotator(tmp_path: Path) -> None:
    repeats = (
        "0,high,1,client,Fine.,n/a,change",
        "0,high,1,client,Fine.,n/a,sustain",
        "1,low,0,client,I might stop.,n/a,neutral",
    )
    once = read(write(tmp_path / "once.csv", annomi()))
    full = read(write(tmp_path / "full.csv", annomi(*repeats)))
    assert full.dialogues == once.dialogues
    assert len(full.problems) == 1
    assert "once for each annotator: the first counts (3 times" in problems(full)


def test_annomi_same_number_with_other_words_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="session 0, turn 1"):
        read(write(tmp_path / "a.csv", annomi("0,high,1,client,Not fine.,n/a,change")))


MAPPING = ColumnMapping(session="chat", speaker="who", text="said", turn="n", act="label")
MAPPED = "\n".join(
    (
        "chat;who;said;n;label",
        "b;User;two;1;In",
        "b;assistant;three;2;reflection",
        "a;client;one;0;n/a",
        "a;counselor;four;1;",
        "c;P;five;0;Change Talk",
        "c;T;six;1;ack",
    )
)


def test_mapped_csv(tmp_path: Path) -> None:
    corpus = read(write(tmp_path / "a.csv", MAPPED), MAPPING)
    assert corpus.format == "columns"
    assert [dialogue.session for dialogue in corpus.dialogues] == ["a", "b", "c"]
    acts = [said.act for dialogue in corpus.dialogues for said in dialogue.utterances]
    assert acts == [None, None, "id", "reflection", "change talk", "ack"]


def test_mapped_jsonl_equals_csv(tmp_path: Path) -> None:
    jsonl = "\n".join(
        (
            '{"chat": "b", "who": "user", "said": "two", "n": 1, "label": "in", "more": [1]}',
            '{"chat": "b", "who": "assistant", "said": "three", "n": 2.0, "label": "reflection"}',
            "",
            '{"chat": "a", "who": "client", "said": "one", "n": 0, "label": null}',
            '{"chat": "a", "who": "T", "said": "fo\\u0075r", "n": "1"}',
            '{"chat": "c", "who": "P", "said": "five", "n": 0, "label": "change talk"}',
            '{"chat": "c", "who": "T", "said": "six", "n": 1, "label": "ack"}',
        )
    )
    from_csv = read(write(tmp_path / "a.csv", MAPPED), MAPPING)
    from_jsonl = read(write(tmp_path / "a.jsonl", jsonl), MAPPING)
    assert from_jsonl.content_hash == from_csv.content_hash


def test_without_turns_the_file_order_counts(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "s,w,t\na,P,one\nb,P,x\nc,P,y\na,T,two\n")
    write(tmp_path / "2.csv", "s,w,t\na,P,three\nb,T,x\nc,T,y\n")
    corpus = read(tmp_path, ColumnMapping(session="s", speaker="w", text="t"))
    first = corpus.dialogues[0].utterances
    assert [(said.turn, said.text) for said in first] == [(0, "one"), (1, "two"), (2, "three")]


def test_hope_as_jsonl_needs_no_mapping(tmp_path: Path) -> None:
    lines = [
        f'{{"ID": "{session}_{turn}", "Type": "{who}", "Utterance": "a", "Dialog_Act": "id"}}'
        for session in (1, 2, 3)
        for turn, who in enumerate("PT")
    ]
    assert read(write(tmp_path / "a.jsonl", "\n".join(lines))).format == "hope"


def test_header_of_annomi_wins_over_nothing(tmp_path: Path) -> None:
    header = ANNOMI_HEADER.replace("client_talk_type", "client_talk")
    with pytest.raises(CorpusError) as raised:
        read(write(tmp_path / "a.csv", annomi(header=header)))
    assert "column client_talk_type must be in the header" in str(raised.value)
    assert "did you mean client_talk?" in str(raised.value)
