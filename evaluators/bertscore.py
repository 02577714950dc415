"""BERTScore by bert-score's own model, tokeniser and matching, without what breaks there.

bert-score 0.3.13 fails on empty strings under transformers 5, on long texts where a tokeniser does
not know its model's length, and groups texts by a set's order, which changes from run to run. Here
empty texts have their own answer, texts are cut at the encoder's length, and batches have one order.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from evaluators.encoders import Encoder
from evaluators.metric_versions import BERTSCORE_NAMES
from evaluators.stopping import stop_if_asked
from trainers.errors import is_out_of_memory
from trainers.progress import ShouldStop, never

_BATCH = 64
"""Texts encoded, and pairs matched, together."""
_CHUNK_TOKENS = 1 << 14
"""Tokens of the references that are encoded and matched together: 50 MB for a hidden size of 768."""
_KEPT_BYTES = 1 << 28
"""Memory for the embeddings of references that were scored before."""

_Stats = tuple[Tensor, Tensor]
"""A text's embeddings (T, hidden size) and token weights (T,)."""
_Encoded = dict[str, _Stats]


class BertScorer:
    """Precision, recall and F1 of contextual embeddings: 0..1, not rescaled, no idf.

    Args:
        encoder: the encoder's files and the layer to read.
        device: where to run; a GPU if there is one.
    """

    names: tuple[str, ...] = BERTSCORE_NAMES

    def __init__(self, encoder: Encoder, device: str | None = None) -> None:
        from bert_score.utils import get_tokenizer

        self.encoder = encoder
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = _load_model(encoder).float().to(self.device)
        self._tokenizer: Any = get_tokenizer(str(encoder.folder))
        longest = _max_tokens(self._model)
        self._tokenizer.model_max_length = min(self._tokenizer.model_max_length, longest)
        # Without idf every token weighs 1, except those that mark a text's ends.
        self._weights: defaultdict[int, float] = defaultdict(lambda: 1.0)
        self._weights[self._tokenizer.sep_token_id] = 0
        self._weights[self._tokenizer.cls_token_id] = 0
        self._kept: dict[tuple[int, tuple[str, ...]], _Encoded] = {}
        """Encoded references by batch, the latest used last: trials share their test sets."""

    def score(
        self,
        replies: Sequence[str],
        references: Sequence[str],
        should_stop: ShouldStop = never,
    ) -> list[dict[str, float]]:
        """Every pair's BERTScore; references that were scored before are not encoded again.

        They are kept by the batch, so that the numbers are to the bit those without. A batch that does not fit the memory is halved; the scores are then equal to about 1e-6.

        Args:
            replies: K texts.
            references: K texts; replies to the same reference are scored together.
            should_stop: asked at every batch.

        Returns:
            K mappings. 0 where one text of a pair is empty, 1 where both are.

        Raises:
            StoppedError: `should_stop` said so.
            MemoryError, RuntimeError: a single text does not fit the memory of the host, or of the
                GPU (`torch.OutOfMemoryError`).
        """
        pairs = [
            (reply.strip(), reference.strip())
            for reply, reference in zip(replies, references, strict=True)
        ]
        found: dict[tuple[str, str], tuple[float, float, float]] = {}
        for pair in pairs:
            if not all(pair):
                found[pair] = (0.0, 0.0, 0.0) if any(pair) else (1.0, 1.0, 1.0)
        at_once = _BATCH
        for references, chunk in self._chunks(set(pairs) - set(found)):
            while (scored := self._score_chunk(references, chunk, at_once, should_stop)) is None:
                at_once //= 2
            found.update(scored)
        return [dict(zip(BERTSCORE_NAMES, found[pair], strict=True)) for pair in pairs]

    def _chunks(
        self, pairs: Iterable[tuple[str, str]]
    ) -> Iterator[tuple[tuple[str, ...], list[tuple[str, str]]]]:
        """References in batches that depend on nothing but the references, and their pairs."""
        replies: defaultdict[str, list[str]] = defaultdict(list)
        for reply, reference in sorted(pairs):
            replies[reference].append(reply)
        waiting = sorted(replies, key=lambda text: (len(text), text))
        while waiting:
            # A token has two characters or more, nearly always; the bound is not exact.
            longest = self._tokenizer.model_max_length
            tokens = accumulate(min(len(text) // 2 + 2, longest) for text in waiting[:_BATCH])
            count = max(1, sum(so_far <= _CHUNK_TOKENS for so_far in tokens))
            references, waiting = tuple(waiting[:count]), waiting[count:]
            yield references, [(reply, text) for text in references for reply in replies[text]]

    def _score_chunk(
        self,
        references: tuple[str, ...],
        chunk: Sequence[tuple[str, str]],
        at_once: int,
        should_stop: ShouldStop,
    ) -> dict[tuple[str, str], tuple[float, float, float]] | None:
        """The chunk's scores; None where so many at once do not fit the memory."""
        found: dict[tuple[str, str], tuple[float, float, float]] = {}
        try:
            theirs = self._encode_references(references, at_once, should_stop)
            ours = self._encode({reply for reply, _ in chunk}, at_once, should_stop)
            for start in range(0, len(chunk), at_once):
                stop_if_asked(should_stop)
                batch = chunk[start : start + at_once]
                found.update(zip(batch, self._match(batch, ours, theirs), strict=True))
        except (MemoryError, RuntimeError) as error:
            if at_once == 1 or not is_out_of_memory(error):
                raise
        else:
            return found
        # Outside the handler: the exception held the failed batch's tensors.
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        return None

    def _encode_references(
        self, references: tuple[str, ...], at_once: int, should_stop: ShouldStop
    ) -> _Encoded:
        """References' embeddings and token weights, from before where the batch is the same."""
        key = (at_once, references)
        encoded = self._kept.pop(key, None)
        if encoded is None:
            encoded = self._encode(references, at_once, should_stop)
        self._kept[key] = encoded
        sizes = {each: sum(map(_bytes, texts.values())) for each, texts in self._kept.items()}
        total = sum(sizes.values())
        for oldest, size in sizes.items():
            if total <= _KEPT_BYTES:
                break
            del self._kept[oldest]
            total -= size
        return encoded

    def _encode(self, texts: Iterable[str], at_once: int, should_stop: ShouldStop) -> _Encoded:
        """Embeddings and token weights of each text, on the CPU."""
        from bert_score.utils import get_bert_embedding

        stats: _Encoded = {}
        by_length = sorted(texts, key=lambda text: (len(text), text))
        for start in range(0, len(by_length), at_once):
            stop_if_asked(should_stop)
            batch = by_length[start : start + at_once]
            embeddings, mask, weights = get_bert_embedding(
                batch, self._model, self._tokenizer, self._weights, device=self.device
            )
            embeddings, lengths = embeddings.cpu(), mask.sum(dim=1).tolist()
            for row, (text, length) in enumerate(zip(batch, lengths, strict=True)):
                stats[text] = (embeddings[row, :length].clone(), weights[row, :length].clone())
        return stats

    def _match(
        self, pairs: Sequence[tuple[str, str]], ours: _Encoded, theirs: _Encoded
    ) -> list[tuple[float, float, float]]:
        """Greedy matching of each pair's tokens: precision, recall, F1."""
        from bert_score.utils import greedy_cos_idf

        sides: list[Tensor] = []
        for stats in ([theirs[text] for _, text in pairs], [ours[text] for text, _ in pairs]):
            embeddings, weights = zip(*stats, strict=True)
            lengths = torch.tensor([len(each) for each in weights])
            mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
            # bert-score pads with 2: a vector that can be normalised and is masked out later.
            padded = pad_sequence(list(embeddings), batch_first=True, padding_value=2.0)
            sides += [
                padded.to(self.device),
                mask.to(self.device),
                pad_sequence(list(weights), batch_first=True).to(self.device),
            ]
        with torch.no_grad():
            scores = torch.stack(greedy_cos_idf(*sides), dim=-1).cpu()
        return [(float(p), float(r), float(f)) for p, r, f in scores.tolist()]


def _bytes(stats: _Stats) -> int:
    return sum(each.numel() * each.element_size() for each in stats)


def _load_model(encoder: Encoder) -> Any:
    """The encoder up to its layer, as bert-score loads it."""
    from bert_score.utils import get_model

    if "t5" not in str(encoder.folder) or "t5" in encoder.name:
        return get_model(str(encoder.folder), encoder.layer)
    # bert-score takes any path with "t5" in it for a T5 model: a plain name leads there instead.
    while "t5" in (scratch := tempfile.mkdtemp()):
        os.rmdir(scratch)
    try:
        link = Path(scratch) / "encoder"
        link.symlink_to(encoder.folder, target_is_directory=True)
        return get_model(str(link), encoder.layer)
    finally:
        shutil.rmtree(scratch)


def _max_tokens(model: Any) -> int:
    """Longest text in tokens that the encoder has positions for; 512 where it does not say."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return 512
    embedding = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(embedding, "padding_idx", None)
    # RoBERTa counts positions from the one after its padding position.
    return positions if padding is None else positions - padding - 1
