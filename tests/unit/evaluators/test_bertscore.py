from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import bert_score
import bert_score.utils
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

from evaluators.bertscore import BertScorer
from evaluators.encoders import Encoder
from evaluators.metric_versions import BERTSCORE_NAMES
from trainers.errors import StoppedError

REPLIES = ["hello there how are you", "I see.", "Tell me more about that, please", "okay", "okay"]
REFERENCES = ["hi, how do you feel?", "I understand.", "What do you feel?", "And then?", "Okay"]


@pytest.fixture(scope="module")
def scorer(encoder: Encoder) -> BertScorer:
    return BertScorer(encoder, device="cpu")


def tiny_roberta(folder: Path, **tokenizer_settings: int) -> Encoder:
    """A random RoBERTa of two layers for 32 tokens."""
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator([*REPLIES, *REFERENCES], vocab_size=400, special_tokens=special)
    bpe.save_model(str(folder))
    RobertaTokenizerFast.from_pretrained(str(folder), **tokenizer_settings).save_pretrained(
        str(folder)
    )
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=400,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=34,
        pad_token_id=1,
        initializer_range=0.5,
    )
    RobertaModel(config).save_pretrained(str(folder))
    return Encoder("tiny", folder, "", 1)


def rows_of(model: Encoder, replies: list[str], references: list[str]) -> list[tuple[float, ...]]:
    columns = bert_score.score(
        replies,
        references,
        model_type=str(model.folder),
        num_layers=model.layer,
        idf=False,
        device="cpu",
    )
    return [tuple(row) for row in torch.stack(columns, dim=1).tolist()]


@pytest.mark.parametrize("layer", [6, 3])
def test_scores_are_those_of_bert_score(encoder: Encoder, layer: int) -> None:
    chosen = dataclasses.replace(encoder, layer=layer)
    ours = BertScorer(chosen, device="cpu").score(REPLIES, REFERENCES)
    theirs = rows_of(chosen, REPLIES, REFERENCES)
    for row, expected in zip(ours, theirs, strict=True):
        assert [row[name] for name in BERTSCORE_NAMES] == pytest.approx(expected, abs=1e-5)


def test_scores_of_another_family_are_those_of_bert_score(tmp_path: Path) -> None:
    model = tiny_roberta(tmp_path, model_max_length=32)
    ours = BertScorer(model, device="cpu").score(REPLIES, REFERENCES)
    for row, expected in zip(ours, rows_of(model, REPLIES, REFERENCES), strict=True):
        assert [row[name] for name in BERTSCORE_NAMES] == pytest.approx(expected, abs=1e-5)


def test_empty_texts_score_nothing_unless_both_are(scorer: BertScorer) -> None:
    rows = scorer.score(["", "a", " ", "\u200b"], ["a", "", "\n", "a"])
    assert [list(row.values()) for row in rows] == [[0.0] * 3, [0.0] * 3, [1.0] * 3, [0.0] * 3]


def test_long_texts_are_cut_at_the_encoders_length(scorer: BertScorer) -> None:
    long = " ".join(f"word{number % 7}" for number in range(2000))
    row = scorer.score([long], [long])[0]
    assert row["bertscore_f1"] == pytest.approx(1.0, abs=1e-5)


def test_a_tokeniser_that_knows_no_length_is_told_one(tmp_path: Path) -> None:
    """RoBERTa has two positions fewer than its configuration says."""
    scorer = BertScorer(tiny_roberta(tmp_path), device="cpu")
    long = " ".join(REPLIES * 400)
    assert scorer.score([long], [long])[0]["bertscore_f1"] == pytest.approx(1.0, abs=1e-5)


def test_a_path_that_reads_like_t5_is_no_t5(tmp_path: Path) -> None:
    folder = tmp_path / "at5"
    folder.mkdir()
    model = tiny_roberta(folder, model_max_length=32)
    assert len(BertScorer(model, device="cpu").score(REPLIES, REFERENCES)) == 5


def test_chunks_change_nothing(scorer: BertScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    replies, references = REPLIES * 3, [*REFERENCES, *REFERENCES[::-1], *REFERENCES]
    whole = scorer.score(replies, references)
    monkeypatch.setattr("evaluators.bertscore._CHUNK_TOKENS", 10)
    monkeypatch.setattr("evaluators.bertscore._BATCH", 2)
    for row, expected in zip(scorer.score(replies, references), whole, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)


def test_each_text_is_encoded_once(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = BertScorer(encoder, device="cpu")
    encoded: list[str] = []
    encode = BertScorer._encode

    def watched(self: BertScorer, texts: list[str], *rest: Any) -> object:
        encoded.extend(texts)
        return encode(self, texts, *rest)

    monkeypatch.setattr(BertScorer, "_encode", watched)
    scorer.score(REPLIES * 3, REFERENCES * 3)
    assert len(encoded) == len(set(encoded)) == len({*REPLIES, *REFERENCES})


@pytest.mark.parametrize("step", ["_match", "get_bert_embedding"])
def test_a_batch_that_does_not_fit_is_halved(
    scorer: BertScorer, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies, references = REPLIES * 3, [*REFERENCES, *REFERENCES[::-1], *REFERENCES]
    whole = scorer.score(replies, references)
    tried: list[int] = []
    module: Any = BertScorer if step == "_match" else bert_score.utils
    work = getattr(module, step)
    at = 1 if step == "_match" else 0

    def crowded(*arguments: Any, **named: Any) -> Any:
        tried.append(len(arguments[at]))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("no memory left")
        return work(*arguments, **named)

    monkeypatch.setattr(module, step, crowded)
    for row, expected in zip(scorer.score(replies, references), whole, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)
    assert tried[0] > 2
    assert tried[-1] <= 2


def test_a_single_text_that_does_not_fit_is_an_error(
    scorer: BertScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(bert_score.utils, "get_bert_embedding", full)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        scorer.score(REPLIES, REFERENCES)


def test_scoring_can_be_stopped(scorer: BertScorer) -> None:
    with pytest.raises(StoppedError):
        scorer.score(REPLIES, REFERENCES, lambda: True)


def test_references_of_other_trials_are_not_encoded_again(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [f"{reply} indeed" for reply in REPLIES]
    fresh = BertScorer(encoder, device="cpu").score(others, REFERENCES)
    scorer = BertScorer(encoder, device="cpu")
    scorer.score(REPLIES, REFERENCES)
    encoded: set[str] = set()
    encode = BertScorer._encode

    def watched(self: BertScorer, texts: Collection[str], *rest: Any) -> Any:
        encoded.update(texts)
        return encode(self, texts, *rest)

    monkeypatch.setattr(BertScorer, "_encode", watched)
    assert scorer.score(others, REFERENCES) == fresh, "to the bit"
    assert encoded == set(others)


def test_kept_references_are_bounded(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = BertScorer(encoder, device="cpu")
    scorer.score(["okay"], ["first"])
    ((_, stats),) = next(iter(scorer._kept.values())).items()
    monkeypatch.setattr("evaluators.bertscore._KEPT_BYTES", 2 * 4 * sum(s.numel() for s in stats))
    for reference in ("second", "third", "second", "fourth"):
        scorer.score(["okay"], [reference])
    assert [texts for _, texts in scorer._kept] == [("second",), ("fourth",)]
