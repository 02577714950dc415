"""Trials that one worker trains together end one by one, as they would have alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corpora.read import read_corpus
from evaluators.score import StreamingScorer
from orchestrator import together
from orchestrator.attempts import Attempt
from orchestrator.together import run_together
from orchestrator.trial import TrialWork, run_trial
from search_spaces.identity import spec_to_dict
from search_spaces.spec import (
    CorpusSpec,
    DecodingSpec,
    DeltaSettings,
    MetricsSpec,
    TrainingSpec,
    TrialSpec,
)
from tests.flow.sweeps import write_corpus
from trainers.errors import DivergedError, StoppedError
from trainers.fingerprint import folder_fingerprint
from trainers.progress import EpochReport

METRICS = MetricsSpec(bertscore_model=None)


@pytest.fixture(scope="module")
def scorer() -> Iterator[StreamingScorer]:
    with closing(StreamingScorer(METRICS)) as one:
        yield one


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusSpec:
    return CorpusSpec(corpus=str(write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.csv")))


def make_work(
    number: int, place: Path, corpus: CorpusSpec, model: Path, **training: Any
) -> TrialWork:
    spec = TrialSpec(
        model=str(model),
        method=DeltaSettings(peft_type="lora", rank=2 + number),
        seed=number,
        corpus=corpus,
        training=TrainingSpec(**{"max_length": 64, "max_steps": 4} | training),
        decoding=DecodingSpec(max_new_tokens=4, beams=(1, 2)),
        metrics=METRICS,
    )
    trial = f"{number:016x}"
    return TrialWork(
        id=trial,
        name=f"trial{number}",
        spec=spec_to_dict(spec),
        model_folder=str(model),
        model_fingerprint=folder_fingerprint(model),
        corpus_hash=read_corpus(corpus).content_hash,
        metric_versions={},
        folder=str(place / "runs/tiny/trials" / trial),
        driver_file=str(place / "driver"),
        token="now",
    )


def allow(place: Path) -> None:
    (place / "driver").write_text('{"token": "now"}')


@pytest.fixture
def place(tmp_path: Path) -> Path:
    allow(tmp_path)
    return tmp_path


class Course:
    """What a group told."""

    def __init__(self) -> None:
        self.epochs: list[tuple[str, int]] = []
        self.ends: dict[str, Exception | None] = {}

    def epoch(self, trial: str, report: EpochReport) -> None:
        self.epochs.append((trial, report.step))

    def end(self, work: TrialWork, error: Exception | None) -> None:
        assert work.id not in self.ends, "a trial ends once"
        self.ends[work.id] = error

    def run(self, group: tuple[TrialWork, ...], scorer: StreamingScorer) -> Course:
        run_together(group, self.epoch, self.end, scorer)
        assert self.ends.keys() == {work.id for work in group}
        assert not [file for one in group for file in Path(one.folder).glob("attempt.json")]
        return self


def result(work: TrialWork) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(work.folder) / "result.json").read_text())
    return found


def test_results_are_those_of_trials_alone(
    place: Path, corpus: CorpusSpec, tiny_gpt2: Path, scorer: StreamingScorer, tmp_path: Path
) -> None:
    rates = (1e-3, 3e-3, 1e-4)
    group = tuple(
        make_work(n, place, corpus, tiny_gpt2, learning_rate=rate, batch_size=n + 1)
        for n, rate in enumerate(rates)
    )
    course = Course().run(group, scorer)
    assert set(course.ends.values()) == {None}
    (tmp_path / "alone").mkdir()
    for work in group:
        alone = replace(work, folder=str(tmp_path / "alone/trials" / work.id))
        steps: list[int] = []
        run_trial(alone, lambda report, steps=steps: steps.append(report.step), scorer)  # type: ignore[misc]
        expected, found = result(alone), result(work)
        assert found["scores"] == pytest.approx(expected["scores"], rel=1e-4)
        assert found["cost"]["fused_with"] == 2
        assert expected["cost"]["fused_with"] == 0
        assert [step for trial, step in course.epochs if trial == work.id] == steps
        unequal = {"scores", "cost", "provenance"}
        assert {k: v for k, v in found.items() if k not in unequal} == {
            k: v for k, v in expected.items() if k not in unequal
        }


def test_a_member_that_fails_harms_no_other(
    place: Path, corpus: CorpusSpec, tiny_gpt2: Path, scorer: StreamingScorer
) -> None:
    good = make_work(0, place, corpus, tiny_gpt2)
    wild = make_work(1, place, corpus, tiny_gpt2, learning_rate=1e30, max_steps=None, epochs=3)
    other = make_work(2, place, corpus, tiny_gpt2)
    changed = replace(make_work(3, place, corpus, tiny_gpt2), corpus_hash="another")
    course = Course().run((good, wild, other, changed), scorer)
    assert isinstance(course.ends[wild.id], DivergedError)
    assert "must stay as it was" in str(course.ends[changed.id])
    for work in (good, other):
        assert course.ends[work.id] is None
        assert result(work)["status"] == "done"


def test_asked_to_stop_all_of_them_stop_and_go_on_later(
    place: Path,
    corpus: CorpusSpec,
    tiny_gpt2: Path,
    scorer: StreamingScorer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = tuple(
        make_work(n, place, corpus, tiny_gpt2, max_steps=None, epochs=4) for n in range(2)
    )

    class Stopping(Course):
        def epoch(self, trial: str, report: EpochReport) -> None:
            super().epoch(trial, report)
            (place / "driver").write_text("{}")

    monkeypatch.setattr("orchestrator.driver._LOOK_EVERY_S", 0.0)
    course = Stopping().run(group, scorer)
    assert all(isinstance(error, StoppedError) for error in course.ends.values())
    assert all(list(Path(work.folder).glob("checkpoint-*")) for work in group)
    allow(place)
    assert set(Course().run(group, scorer).ends.values()) == {None}


@pytest.mark.parametrize("dead", [{"lost": 1}, {"killed_for_memory": True}])
def test_after_deaths_of_workers_each_goes_on_alone(
    place: Path,
    corpus: CorpusSpec,
    tiny_gpt2: Path,
    scorer: StreamingScorer,
    dead: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.attempts._pause", lambda seconds, should_stop: None)
    monkeypatch.setattr(together, "_train", None)
    group = tuple(make_work(n, place, corpus, tiny_gpt2) for n in range(2))
    Path(group[1].folder).mkdir(parents=True)
    died = Attempt("now", 1, "host", reached="0 False 0", **dead)
    (Path(group[1].folder) / "attempt.json").write_text(json.dumps(vars(died)))
    assert set(Course().run(group, scorer).ends.values()) == {None}
    assert [result(work)["cost"]["fused_with"] for work in group] == [0, 0]
    assert not result(group[1])["adjusted"], "alone it needs no smaller batch"


def test_what_has_a_result_is_left_alone(
    place: Path, corpus: CorpusSpec, tiny_gpt2: Path, scorer: StreamingScorer
) -> None:
    group = tuple(make_work(n, place, corpus, tiny_gpt2) for n in range(3))
    run_trial(group[0], lambda report: None, scorer)
    before = (Path(group[0].folder) / "result.json").stat().st_mtime_ns
    course = Course().run(group, scorer)
    assert set(course.ends.values()) == {None}
    assert (Path(group[0].folder) / "result.json").stat().st_mtime_ns == before
    assert {trial for trial, _ in course.epochs} == {group[1].id, group[2].id}


def test_a_broken_group_trains_one_by_one_and_says_why(
    place: Path,
    corpus: CorpusSpec,
    tiny_gpt2: Path,
    scorer: StreamingScorer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr("trainers.fused.train_fused", broken)
    group = tuple(make_work(n, place, corpus, tiny_gpt2) for n in range(2))
    course = Course().run(group, scorer)
    assert set(course.ends.values()) == {None}
    assert {trial for trial, _ in course.epochs} == {work.id for work in group}
    for work in group:
        assert result(work)["notes"] == [
            "trained alone, because training together failed: no kernel for this"
        ]


def test_replies_that_cannot_be_decoded_together_are_decoded_alone(
    place: Path,
    corpus: CorpusSpec,
    tiny_gpt2: Path,
    scorer: StreamingScorer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr("evaluators.together.decode_together", broken)
    group = tuple(make_work(n, place, corpus, tiny_gpt2) for n in range(2))
    course = Course().run(group, scorer)
    assert set(course.ends.values()) == {None}
    for work in group:
        assert result(work)["notes"] == ["decoded alone, because decoding together failed: no room"]
