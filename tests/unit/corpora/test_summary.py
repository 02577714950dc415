from __future__ import annotations

import json
from pathlib import Path

from corpora.acts import ACTS
from corpora.read import read_corpus
from corpora.summary import summarise
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
