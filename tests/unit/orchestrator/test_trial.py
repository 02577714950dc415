"""A trial runs on what it was planned with, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corpora.read import read_corpus
from orchestrator.failure import reason_of
from orchestrator.trial import TrialWork, run_trial
from search_spaces.errors import SearchSpaceError
from search_spaces.identity import spec_to_dict
from search_spaces.spec import CorpusSpec, SftSettings, TrialSpec
from tests.flow.sweeps import write_corpus
from trainers.fingerprint import folder_fingerprint


@pytest.fixture
def work(tmp_path: Path, tiny_gpt2: Path) -> TrialWork:
    corpus = CorpusSpec(corpus=str(write_corpus(tmp_path / "corpus.csv")))
    spec = TrialSpec(model=str(tiny_gpt2), method=SftSettings(), corpus=corpus)
    return TrialWork(
        id="0" * 16,
        name="tiny",
        spec=spec_to_dict(spec),
        model_folder=str(tiny_gpt2),
        model_fingerprint=folder_fingerprint(tiny_gpt2),
        corpus_hash=read_corpus(corpus).content_hash,
        metric_versions={},
        folder=str(tmp_path / "runs/tiny/trials" / ("0" * 16)),
    )


def test_a_corpus_that_changed_since_the_plan_is_refused(work: TrialWork) -> None:
    write_corpus(Path(work.spec["corpus"]["corpus"]), sessions=9)
    with pytest.raises(SearchSpaceError, match=r"corpus: .*must stay as it was") as changed:
        run(work)
    assert reason_of(changed.value) == "configuration"


def test_a_model_that_changed_since_the_plan_is_refused(work: TrialWork) -> None:
    other = TrialWork(**{**vars(work), "model_fingerprint": "sha256:" + "0" * 64})
    with pytest.raises(SearchSpaceError, match=r"model: .*must stay as it was"):
        run(other)


def run(work: TrialWork) -> Any:
    def scorer_is_not_asked() -> None: ...

    return run_trial(work, lambda report: None, scorer_is_not_asked)  # type: ignore[arg-type]
