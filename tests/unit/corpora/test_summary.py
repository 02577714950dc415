from __future__ import annotations

import json
from pathlib import Path

from corpora.acts import ACTS
from corpora.read import read_corpus
from corpora.summary import MOST_PLACES, summarise
from search_spaces.spec import CorpusSpec, SplitSpec
from tests.unit.corpora.small_corpora import hope, read, write


def test_sample_in_figures() -> None:
    summary = summarise(read_corpus(CorpusSpec()), "v1", SplitSpec())
    assert list(summary["acts"]) == list(ACTS)
    assert sum(summary["acts"].values()) == sum(summary["speakers"].values())
    assert summary["utterances"] == sum(summary["speakers"].values())
    assert summary["pairs"] == sum(summary["splits"].values())
    assert summary["sessions"] == sum(summary["split_sessions"].values())
    assert summary["identifiers"] == {}
    assert summary["shared_pairs"] == 0
    assert json.loads(json.dumps(summary)) == summary


def test_oddities_show(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        hope("4_0,P,mail a@b.org,zz", "4_1,T,yes,op", "5_0,P,call 555-1234,", "5_1,T,yes,ack"),
    )
    summary = summarise(read(path), "shift", SplitSpec(max_train_pairs=1))
    assert list(summary["acts"])[-1] == "unknown"
    assert summary["identifiers"] == {"email": 1, "phone": 1}
    assert summary["splits"]["train"] == 1
    assert summary["pairs"] > sum(summary["splits"].values())
    assert [problem.startswith(f"{path}: line ") for problem in summary["problems"]] == [True] * 2


def test_places_of_identifiers_and_never_their_text(tmp_path: Path) -> None:
    said = "a@b.org and c@d.org or 555-1234"
    path = write(
        tmp_path / "a.csv",
        hope(f"4_0,P,{said},gc", "4_1,T,fine,id", "jo@x.org_0,P,hm,id", "jo@x.org_1,T,ok,id"),
    )
    summary = summarise(read(path), "v1", SplitSpec())
    assert summary["identifiers"] == {"email": 3, "phone": 1}
    assert summary["identifier_places"] == [
        {"kind": "email", "session": "4", "turn": 0, "count": 2},
        {"kind": "phone", "session": "4", "turn": 0, "count": 1},
        {"kind": "email", "session": "[EMAIL]", "turn": None, "count": 1},
    ]
    assert summary["identifier_places_left_out"] == 0
    told = json.dumps(summary)
    assert not any(part in told for part in ("a@b", "c@d", "jo@x", "555-"))


def test_many_places_are_cut_and_counted(tmp_path: Path) -> None:
    rows = [f"4_{turn},P,mail a{turn}@b.org,gc" for turn in range(MOST_PLACES + 7)]
    summary = summarise(read(write(tmp_path / "a.csv", hope(*rows))), "shift", SplitSpec())
    assert summary["identifiers"] == {"email": MOST_PLACES + 7}
    assert len(summary["identifier_places"]) == MOST_PLACES
    assert summary["identifier_places_left_out"] == 7
