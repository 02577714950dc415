"""An evaluation that was interrupted, wherever, ends as one that was not."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from corpora.dialogue import PairSplits
from evaluators import chatmgl_protocol, decoding
from evaluators.bertscore import BertScorer
from evaluators.causal_model import CausalModel
from evaluators.evaluate import Evaluation, evaluate
from evaluators.score import StreamingScorer
from search_spaces.spec import DecodingSpec, MetricsSpec, SftSettings, TrainingSpec, TrialSpec
from tests.unit.evaluators.tiny_models import make_model, make_pairs, make_tuned
from trainers.errors import StoppedError
from trainers.tuned import TunedModel

pytestmark = pytest.mark.usefixtures("wordnet", "short_chatmgl")

WORDS = MetricsSpec(bertscore_model=None)
PAIRS = PairSplits(train=(), valid=tuple(make_pairs(5)), test=tuple(make_pairs(16)[5:]))
WIDTHS = (1, 2, 4)
REPLIES = 5 + 11 * 3


def batched() -> TunedModel:
    return make_tuned(make_model("llama"))


def one_by_one() -> TunedModel:
    model: Any = make_model("llama")
    model.generation_config.repetition_penalty = 1.7
    return make_tuned(model)


PATHS: dict[str, tuple[Callable[[], TunedModel], str]] = {
    "batched": (batched, "clean"),
    "one by one": (one_by_one, "clean"),
    "chatmgl": (batched, "chatmgl"),
}
every_path = pytest.mark.parametrize("path", PATHS)


@pytest.fixture
def short_chatmgl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chatmgl_protocol, "CHATMGL_MAX_NEW_TOKENS", 8)


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / "replies.partial.jsonl"


def spec_of(path: str, metrics: MetricsSpec = WORDS) -> TrialSpec:
    protocol: Any = PATHS[path][1]
    return TrialSpec(
        model="tiny",
        method=SftSettings(),
        training=TrainingSpec(max_length=96),
        decoding=DecodingSpec(beams=WIDTHS, max_new_tokens=8, eval_batch_size=4, protocol=protocol),
        metrics=metrics,
    )


@pytest.fixture(scope="module")
def scorer(wordnet: None) -> Iterator[StreamingScorer]:
    with closing(StreamingScorer(WORDS)) as shared:
        yield shared


class StopAt:
    """Says yes when it is asked for the n-th time; counts."""

    def __init__(self, number: int | None = None) -> None:
        self.asked = 0
        self.number = number

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked == self.number


def run(path: str, scorer: StreamingScorer, **settings: Any) -> Evaluation:
    return evaluate(
        PATHS[path][0](), PAIRS, spec_of(path, scorer.metrics), scorer, key="k", **settings
    )


def kept_lines(partial: Path) -> list[tuple[str, int, str]]:
    records = [json.loads(line) for line in partial.read_text().splitlines()[1:]]
    return [(r["part"], r["beam"], r["pair_id"]) for r in records if "part" in r]


@every_path
def test_stopped_at_random_points_it_ends_as_if_it_had_not_been(
    path: str, partial: Path, scorer: StreamingScorer
) -> None:
    draw = random.Random(path)
    counted = StopAt()
    whole = run(path, scorer, should_stop=counted)
    assert counted.asked > 30
    points = [draw.randint(1, counted.asked) for _ in range(3)]
    kept = 0
    for point in [1, *sorted(points, reverse=True), counted.asked]:
        stop = StopAt(point)
        try:
            resumed = run(path, scorer, partial=partial, should_stop=stop)
        except StoppedError:
            assert stop.asked == point, "asked no more once it has said yes"
            assert len(kept_lines(partial)) >= kept
            kept = len(kept_lines(partial))
        else:
            assert stop.asked < point
            assert resumed == whole
    assert run(path, scorer, partial=partial) == whole
    found = kept_lines(partial)
    assert len(found) == len(set(found)) == REPLIES, "each reply is generated once"


@every_path
def test_an_exception_loses_no_reply(
    path: str, partial: Path, monkeypatch: pytest.MonkeyPatch, scorer: StreamingScorer
) -> None:
    whole = run(path, scorer)
    for at in (20, 8, 2):
        asked = StopAt(at)

        def broken(asked: StopAt = asked) -> bool:
            if asked():
                raise ZeroDivisionError("something else")
            return False

        with pytest.raises(ZeroDivisionError):
            run(path, scorer, partial=partial, should_stop=broken)
    assert run(path, scorer, partial=partial) == whole
    assert len(kept_lines(partial)) == REPLIES


@every_path
def test_what_is_finished_is_not_generated_again(
    path: str, partial: Path, monkeypatch: pytest.MonkeyPatch, scorer: StreamingScorer
) -> None:
    whole = run(path, scorer, partial=partial)
    before = partial.read_bytes()
    for name in ("_decode", "decode_batches"):
        monkeypatch.setattr(decoding, name, lambda *_: iter(()))
    monkeypatch.setattr(decoding.sampling, "generate_one", None)
    assert run(path, scorer, partial=partial) == whole
    assert partial.read_bytes() == before


@every_path
def test_a_file_cut_or_spoilt_anywhere_is_made_good(
    path: str, partial: Path, scorer: StreamingScorer
) -> None:
    draw = random.Random(path)
    whole = run(path, scorer, partial=partial)
    good = partial.read_bytes()
    for _ in range(3):
        spoilt = bytearray(good[: draw.randrange(len(good))])
        for _ in range(3):
            spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
        # A flipped bit inside a reply's words cannot be told: those stay as they are.
        lines = bytes(spoilt).split(b"\n")
        partial.write_bytes(
            b"\n".join(
                line if b'"reply": ' not in line or line in good else line[:-1] for line in lines
            )
        )
        assert run(path, scorer, partial=partial) == whole


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pair_id", "elsewhere:1"),
        ("prompt", "another prompt"),
        ("model_input", "Patient: another\nTherapist:"),
        ("reference", "another reference"),
        ("act", "irq"),
        ("scored", "something"),
        ("beam", 3),
        ("reply", " blanks around it "),
    ],
)
def test_a_reply_to_another_question_is_not_taken(
    name: str, value: object, partial: Path, scorer: StreamingScorer
) -> None:
    whole = run("batched", scorer, partial=partial)
    lines = partial.read_text().splitlines()
    changed = json.loads(lines[-1]) | {name: value, "part": "test"}
    partial.write_text("\n".join([*lines[:-1], json.dumps(changed)]) + "\n")
    assert run("batched", scorer, partial=partial) == whole
    assert partial.read_text().splitlines()[-1] == lines[-1]


def test_replies_of_other_weights_are_not_taken(partial: Path, scorer: StreamingScorer) -> None:
    spec = spec_of("batched")
    other = make_tuned(make_model("llama", seed=5))
    whole = evaluate(other, PAIRS, spec, scorer)
    evaluate(batched(), PAIRS, spec, scorer, partial=partial, key="k")
    assert evaluate(other, PAIRS, spec, scorer, partial=partial, key="l") == whole
    assert whole.parts != run("batched", scorer).parts


def test_only_missing_widths_are_decoded(
    partial: Path, monkeypatch: pytest.MonkeyPatch, scorer: StreamingScorer
) -> None:
    whole = run("batched", scorer, partial=partial)
    lines = partial.read_text().splitlines()
    records = [json.loads(line) for line in lines[1:]]
    lost = {("test", 4, PAIRS.test[0].pair_id), ("test", 1, PAIRS.test[0].pair_id)}
    lost |= {("test", 2, pair.pair_id) for pair in PAIRS.test[2:5]}
    stay = [r for r in records if (r["part"], r["beam"], r["pair_id"]) not in lost]
    partial.write_text("\n".join([lines[0], *map(json.dumps, stay)]) + "\n")
    searched: dict[int, int] = {}
    start = decoding.start_search

    def watched(prompts: int, width: int, **settings: Any) -> Any:
        searched[width] = searched.get(width, 0) + prompts
        return start(prompts, width, **settings)

    monkeypatch.setattr(decoding, "start_search", watched)
    assert run("batched", scorer, partial=partial) == whole
    assert searched == {1: 1, 2: 3, 4: 1}


def test_scores_are_the_same_to_the_last_bit(
    partial: Path, metrics: MetricsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_in_bertscore = False
    match = BertScorer._match

    def watched(*arguments: Any) -> Any:
        nonlocal asked_in_bertscore
        asked_in_bertscore = True
        return match(*arguments)

    with closing(StreamingScorer(metrics, device="cpu")) as scorer:
        whole = run("batched", scorer)
        monkeypatch.setattr(BertScorer, "_match", watched)
        monkeypatch.setattr("evaluators.bertscore._BATCH", 2)
        for point in (StopAt(12), lambda: asked_in_bertscore):
            with pytest.raises(StoppedError):
                run("batched", scorer, partial=partial, should_stop=point)
        assert asked_in_bertscore
        monkeypatch.undo()
        assert run("batched", scorer, partial=partial) == whole
    assert "test/bertscore_f1_beam4" in whole.scores


def memory_errors() -> dict[str, BaseException]:
    return {
        "gpu": torch.OutOfMemoryError("CUDA out of memory"),
        "host": RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 4 bytes"
        ),
        "python": MemoryError(),
    }


@pytest.mark.parametrize("where", memory_errors())
def test_a_smaller_batch_is_noted_and_kept(
    where: str, partial: Path, monkeypatch: pytest.MonkeyPatch, scorer: StreamingScorer
) -> None:
    read = CausalModel.read
    tried: list[int] = []

    def crowded(self: CausalModel, prompts: Any, *others: Any) -> Any:
        tried.append(len(prompts))
        if len(prompts) > 1:
            raise memory_errors()[where]
        return read(self, prompts, *others)

    whole = run("batched", scorer)
    assert whole.adjusted == {}
    monkeypatch.setattr(CausalModel, "read", crowded)
    with pytest.raises(StoppedError):
        run("batched", scorer, partial=partial, should_stop=StopAt(20))
    assert tried[:3] == [4, 2, 1]
    tried.clear()
    resumed = run("batched", scorer, partial=partial)
    assert set(tried) == {1}, "a rerun does not try again what did not fit"
    assert resumed.parts == whole.parts
    assert resumed.adjusted == {"eval_batch_size": 1}


@pytest.mark.parametrize("where", memory_errors())
def test_a_single_prompt_that_does_not_fit_is_an_error(
    where: str, partial: Path, monkeypatch: pytest.MonkeyPatch, scorer: StreamingScorer
) -> None:
    error = memory_errors()[where]

    def full(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(CausalModel, "read", full)
    with pytest.raises(type(error)):
        run("batched", scorer, partial=partial)


def test_another_runtime_error_is_no_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch, scorer: StreamingScorer
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(CausalModel, "read", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        run("batched", scorer)


def test_what_settled_before_the_memory_ran_out_is_not_decoded_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[dict[int, tuple[int, ...]]] = []
    decode = decoding._decode

    def crowded(model: Any, batch: Any, *others: Any) -> Any:
        started.append({prompt.number: prompt.widths for prompt in batch})
        for group in decode(model, batch, *others):
            yield group
            if len(started) == 1:
                settled.extend(key for key, _ in group)
                raise MemoryError

    settled: list[tuple[int, int]] = []
    monkeypatch.setattr(decoding, "_decode", crowded)
    spec = spec_of("batched")
    longer = dataclasses.replace(spec.decoding, max_new_tokens=30)
    decoding.generate(batched(), PAIRS.test, longer, WIDTHS, 96, 0)
    assert settled
    for width, number in settled:
        for later in started[1:]:
            assert width not in later.get(number, ())
