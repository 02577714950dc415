"""How alike a reply and its reference are to an encoder, as a reward counts it.

Nothing is kept from call to call: what a text is encoded together with changes its last bits, and a
training that is continued must get the rewards of one that is not interrupted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from search_spaces.errors import one_problem
from search_spaces.spec import MetricsSpec
from trainers.encoder_files import fetch_encoder
from trainers.errors import ModelError
from trainers.loading import device_here
from trainers.model_files import find_dangers, read_object

Alike = Callable[[Sequence[str], Sequence[str]], list[float]]
"""B scores of B replies against B references."""

_POSITIONS = 512
"""Of an encoder that does not say how many it has."""


class CosineSimilarity:
    """Cosine of two texts' mean-pooled embeddings, -1..1; 0 where one of them is empty.

    Args:
        folder: of the encoder.

    Raises:
        ModelError: the folder's files make no encoder.

    Source: sentence-transformers' mean pooling (Reimers and Gurevych 2019).
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer

        _refuse_dangers(folder)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
            self._model: Any = AutoModel.from_pretrained(
                folder,
                dtype=torch.float32,
                trust_remote_code=False,
                weights_only=True,
                local_files_only=True,
            )
        except (
            OSError,
            ValueError,
            RuntimeError,
            LookupError,
            TypeError,
            SafetensorError,
        ) as error:
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            message = f"cannot be loaded as an encoder: {first}"
            raise ModelError(
                one_problem("search space", "similarity_model", message, str(folder))
            ) from error
        self._model.eval().to(device_here())
        self._longest = _longest(self._tokenizer, self._model)

    def score(self, replies: Sequence[str], references: Sequence[str]) -> list[float]:
        """Each reply's cosine with its reference.

        Args:
            replies: B texts.
            references: B texts.
        """
        embedded = self._embed([*replies, *references])
        said, wanted = embedded.chunk(2)
        cosines = torch.nn.functional.cosine_similarity(said, wanted)
        return _zero_where_empty(replies, references, cosines)

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> torch.Tensor:
        batch = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
        ).to(self._model.device)
        states_bth = self._model(**batch).last_hidden_state
        mask_bt1 = batch["attention_mask"][:, :, None].to(states_bth.dtype)
        embeddings: torch.Tensor = (states_bth * mask_bt1).sum(1) / mask_bt1.sum(1)
        return embeddings


class BertScore:
    """BERTScore F1 by bert-score, not rescaled, no idf; 0 where one of two texts is empty.

    Args:
        folder: of the encoder.
        layer: that is read, counted from 1.

    Source: Zhang et al. 2020.
    """

    def __init__(self, folder: Path, layer: int) -> None:
        from bert_score.utils import get_model, get_tokenizer

        _refuse_dangers(folder)
        self._model: Any = get_model(str(folder), layer).float().to(device_here())
        self._tokenizer: Any = get_tokenizer(str(folder))
        self._tokenizer.model_max_length = _longest(self._tokenizer, self._model)
        # Every token weighs 1, except those that mark a text's ends.
        self._weights: defaultdict[int, float] = defaultdict(lambda: 1.0)
        self._weights[self._tokenizer.sep_token_id] = 0.0
        self._weights[self._tokenizer.cls_token_id] = 0.0

    def score(self, replies: Sequence[str], references: Sequence[str]) -> list[float]:
        """Each reply's F1.

        Args:
            replies: B texts.
            references: B texts.
        """
        from bert_score.utils import get_bert_embedding, greedy_cos_idf

        sides: list[Any] = []
        for texts in (references, replies):
            # bert-score 0.3.13 fails on empty texts under transformers 5; any word will do.
            said = [text.strip() or "." for text in texts]
            device = self._model.device
            sides += get_bert_embedding(
                said, self._model, self._tokenizer, self._weights, device=device
            )
        with torch.inference_mode():
            f1 = greedy_cos_idf(*(side.to(self._model.device) for side in sides))[2]
        return _zero_where_empty(replies, references, f1)


def bertscore_layer(metrics: MetricsSpec, folder: Path) -> int:
    """Layer that BERTScore reads: the one asked for, else bert-score's for the name, else the last.

    Args:
        metrics: encoder and layer.
        folder: of the encoder.
    """
    from bert_score.utils import model2layers

    config = read_object(folder / "config.json")
    layers = int(config.get("num_hidden_layers") or config.get("n_layers") or 0)
    asked: int | None = metrics.bertscore_layer or model2layers.get(metrics.bertscore_model)
    return min(asked, layers) if asked else layers


def fetch_bertscore(metrics: MetricsSpec) -> tuple[Path, str, int]:
    """Folder, fingerprint and layer of the encoder that scores and rewards share.

    Args:
        metrics: the trial's.

    Raises:
        ModelError: the trial leaves BERTScore out, or the encoder is nowhere to be had.
    """
    if metrics.bertscore_model is None:
        message = "must name an encoder where `bertscore_weight` is not 0"
        raise ModelError(one_problem("search space", "bertscore_model", message))
    folder, fingerprint = fetch_encoder(metrics.bertscore_model, "bertscore_model")
    return folder, fingerprint, bertscore_layer(metrics, folder)


def _refuse_dangers(folder: Path) -> None:
    if dangers := find_dangers(folder):
        raise ModelError(dangers)


def _longest(tokenizer: Any, model: Any) -> int:
    """Longest text in tokens that tokenizer and encoder both take."""
    positions = getattr(model.config, "max_position_embeddings", None) or _POSITIONS
    if model.config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= 2  # Theirs begin after that of the padding.
    return min(int(tokenizer.model_max_length), int(positions))


def _zero_where_empty(
    replies: Sequence[str], references: Sequence[str], scores: torch.Tensor
) -> list[float]:
    return [
        score if reply.strip() and reference.strip() else 0.0
        for reply, reference, score in zip(replies, references, scores.tolist(), strict=True)
    ]
