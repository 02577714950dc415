"""Time our batched decoding against transformers' `generate`, one by one and batched.

Run with `python -m benchmarks.decoding`; a small random GPT-2 on the CPU, or `--device cuda`.
All three give replies at beam widths 1, 2 and 4; the table shows seconds and ratios of one run.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from corpora.dialogue import Pair
from evaluators.decoding import generate
from search_spaces.spec import DecodingSpec
from trainers.tuned import TunedModel

WIDTHS = (1, 2, 4)
_VOCABULARY = 8192
_POSITIONS = 512


def main() -> None:
    """Time the three and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    tuned, pairs = _small_model(arguments), _prompts(arguments.prompts)
    decoding = DecodingSpec(
        max_new_tokens=arguments.new_tokens,
        eval_batch_size=arguments.batch,
        prompt_template="{prompt}",
    )
    runs: dict[str, Callable[[], list[str]]] = {
        "ours, batched": lambda: [
            reply.reply for reply in generate(tuned, pairs, decoding, WIDTHS, _POSITIONS, seed=0)
        ],
        "generate, one by one": lambda: _transformers(tuned, pairs, decoding, batch=1),
        "generate, batched": lambda: _transformers(tuned, pairs, decoding, arguments.batch),
    }
    runs["ours, batched"]()  # warm-up
    seconds, replies = {}, {}
    for name, run in runs.items():
        start = time.perf_counter()
        replies[name] = run()
        seconds[name] = time.perf_counter() - start
    ours = "ours, batched"
    for name in runs:
        same = sum(a == b for a, b in zip(replies[name], replies[ours], strict=True))
        print(
            f"{name:22} {seconds[name]:8.2f} s   {seconds[name] / seconds[ours]:6.2f} x ours   "
            f"{same}/{len(replies[ours])} replies as ours"
        )
    if arguments.device == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")


def _small_model(arguments: argparse.Namespace) -> TunedModel:
    """A random GPT-2 that ends some replies early, and a tokeniser of numbered words."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=_VOCABULARY,
            n_positions=_POSITIONS,
            n_embd=arguments.hidden_size,
            n_layer=arguments.layers,
            n_head=arguments.hidden_size // 64,
            initializer_range=0.1,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    model.to(arguments.device)
    model.eval()
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(_VOCABULARY)}, unk_token="w1"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w0", pad_token="w0")
    tuned = TunedModel(model, tokenizer, Path(), 0, 0)
    # A random model never ends a text by itself: take the tokens with which it ends about half of
    # them early, as tuned models do.
    probe = DecodingSpec(max_new_tokens=arguments.new_tokens, prompt_template="{prompt}")
    replies = generate(tuned, _prompts(32), probe, (1,), _POSITIONS, seed=0)
    stops: set[str] = set()
    for reply in replies:
        if sum(not stops.isdisjoint(other.reply.split()) for other in replies) >= len(replies) // 2:
            break
        stops.add(reply.reply.split()[arguments.new_tokens // 2])
    model.generation_config.eos_token_id = [0, *sorted(int(word[1:]) for word in stops)]
    return tuned


def _prompts(count: int) -> list[Pair]:
    """Prompts of 8 to 200 tokens, as patients' turns are: many short, few long."""
    draw = random.Random(0)
    lengths = [min(200, 8 + int(draw.expovariate(1 / 40))) for _ in range(count)]
    return [
        Pair(
            pair_id=str(number),
            session="s",
            prompt=" ".join(f"w{draw.randrange(1, _VOCABULARY)}" for _ in range(length)),
            reference="",
        )
        for number, length in enumerate(lengths)
    ]


def _transformers(
    tuned: TunedModel, pairs: list[Pair], decoding: DecodingSpec, batch: int
) -> list[str]:
    """Replies by transformers, left-padded in the order of the pairs."""
    model: Any = tuned.model
    stops = {f"w{token}" for token in model.generation_config.eos_token_id}
    replies = []
    for width in WIDTHS:
        for start in range(0, len(pairs), batch):
            inputs = tuned.tokenizer(
                [pair.prompt for pair in pairs[start : start + batch]],
                return_tensors="pt",
                padding=True,
                padding_side="left",
            ).to(model.device)
            with torch.inference_mode():
                output = model.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    num_beams=width,
                    do_sample=False,
                    early_stopping=False,
                    max_new_tokens=decoding.max_new_tokens,
                    pad_token_id=0,
                )
            for row in output[:, inputs["input_ids"].shape[1] :].tolist():
                words = []
                for token in row:
                    if f"w{token}" in stops:
                        break
                    words.append(f"w{token}")
                replies.append(" ".join(words))
    return replies


if __name__ == "__main__":
    main()
