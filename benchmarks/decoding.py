"""Time our decoding against transformers' `generate`, batched and one by one.

Run with `python -m benchmarks.decoding`; a small random GPT-2 on the CPU, or `--device cuda`. All give
replies at beam widths 1, 2 and 4: transformers in a pass a width, in batches of prompts of like
length. With `--adapters K`, K LoRA adapters together against one after another. Replies must be
equal. What is written to `benchmarks/results/decode.{json,md}` are seconds of processor time on a CPU, of
the clock on a GPU, and ratios of one run.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.results import describe_machine, write_results
from corpora.dialogue import Pair
from evaluators.causal_model import CausalModel
from evaluators.decoding import decode_batches, generate
from evaluators.questions import Questions
from search_spaces.spec import DecodingSpec
from trainers.peft_adapters import load_adapter, peft_warnings_ignored
from trainers.progress import never
from trainers.row_adapters import row_adapters
from trainers.tuned import TunedModel

WIDTHS = (1, 2, 4)
_POSITIONS = 512

Replies = list[list[str]]
"""Of each adapter, in the order of (beam, pair)."""


def main() -> None:
    """Time every shape and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128], help="hidden sizes")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=2000)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=40)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--adapters", type=int, nargs="*", default=[], help="4 8, say")
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many counts")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    rows = [row for width in arguments.widths for row in _measure(width, arguments)]
    facts = {
        "compared": f"beam widths {WIDTHS}, {arguments.prompts} prompts of 8 to 200 tokens, "
        f"{arguments.new_tokens} new tokens, batches of {arguments.batch}, {arguments.layers} "
        f"layers, a vocabulary of {arguments.vocabulary}; best of {arguments.repeats}",
        "seconds": "of processor time" if arguments.device == "cpu" else "of the clock",
        "machine": describe_machine(),
    }
    print(write_results("decode", rows, facts).with_suffix(".md").read_text())


def _measure(width: int, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    tuned = _small_model(width, arguments)
    pairs = _prompts(arguments.prompts, arguments.vocabulary)
    decoding = DecodingSpec(
        max_new_tokens=arguments.new_tokens,
        eval_batch_size=arguments.batch,
        prompt_template="{prompt}",
    )
    runs: dict[str, Callable[[], Replies]] = {
        "ours": lambda: [_ours(tuned, pairs, decoding)],
        "transformers, batched": lambda: [_transformers(tuned, pairs, decoding, arguments.batch)],
        "transformers, one by one": lambda: [_transformers(tuned, pairs, decoding, batch=1)],
    }
    yield from _compare(runs, {"width": width, "adapters": 0}, arguments)
    for count in arguments.adapters:
        with TemporaryDirectory() as scratch:
            folders = [_adapter(tuned, Path(scratch) / f"{n}", n) for n in range(count)]
            both: dict[str, Callable[[], Replies]] = {
                "ours, together": partial(_together, tuned, folders, pairs, decoding),
                "ours, one after another": partial(_in_turn, tuned, folders, pairs, decoding),
            }
            yield from _compare(both, {"width": width, "adapters": count}, arguments)


def _compare(
    runs: dict[str, Callable[[], Replies]], shape: dict[str, int], arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """A row for each run: seconds, and how many times those of the first."""
    clock = time.process_time if arguments.device == "cpu" else time.perf_counter
    seconds = dict.fromkeys(runs, float("inf"))
    replies: dict[str, Replies] = {}
    first = next(iter(runs))
    runs[first]()  # Warm-up.
    for _ in range(arguments.repeats):
        # In turn, so that a noisy minute is all runs' alike.
        for name, run in runs.items():
            start = clock()
            replies[name] = run()
            seconds[name] = min(seconds[name], clock() - start)
    for name in runs:
        if replies[name] != replies[first]:
            raise AssertionError(f"{name} must give the replies of {first}, but does not")
        yield {
            **shape,
            "decoded by": name,
            "seconds": round(seconds[name], 3),
            "times the first": round(seconds[name] / seconds[first], 2),
        }


def _small_model(width: int, arguments: argparse.Namespace) -> TunedModel:
    """A random GPT-2 that ends some replies early, and a tokeniser of numbered words."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=arguments.vocabulary,
            n_positions=_POSITIONS,
            n_embd=width,
            n_layer=arguments.layers,
            n_head=4,
            initializer_range=0.1,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    model.to(arguments.device)
    model.eval()
    vocabulary = {f"w{n}": n for n in range(arguments.vocabulary)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="w1"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w0", pad_token="w0")
    tuned = TunedModel(model, tokenizer, Path(), 0, 0)
    # A random model never ends a text by itself: take the tokens with which it ends about half of
    # them early, as tuned models do.
    probe = DecodingSpec(max_new_tokens=arguments.new_tokens, prompt_template="{prompt}")
    replies = generate(tuned, _prompts(32, arguments.vocabulary), probe, (1,), _POSITIONS, seed=0)
    stops: set[str] = set()
    for reply in replies:
        if sum(not stops.isdisjoint(other.reply.split()) for other in replies) >= len(replies) // 2:
            break
        stops.add(reply.reply.split()[arguments.new_tokens // 2])
    model.generation_config.eos_token_id = [0, *sorted(int(word[1:]) for word in stops)]
    return tuned


def _prompts(count: int, vocabulary: int) -> list[Pair]:
    """Prompts of 8 to 200 tokens, as patients' turns are: many short, few long."""
    draw = random.Random(0)
    lengths = [min(200, 8 + int(draw.expovariate(1 / 40))) for _ in range(count)]
    return [
        Pair(
            pair_id=str(number),
            session="s",
            prompt=" ".join(f"w{draw.randrange(1, vocabulary)}" for _ in range(length)),
            reference="",
        )
        for number, length in enumerate(lengths)
    ]


def _adapter(tuned: TunedModel, folder: Path, seed: int) -> Path:
    """A random LoRA of rank 8 that changes replies."""
    torch.manual_seed(seed)
    base: Any = tuned.model
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=8, fan_in_fan_out=True, init_lora_weights=False
    )
    with peft_warnings_ignored():
        model = get_peft_model(base, config)
        model.save_pretrained(str(folder))
        model.unload()
    return folder


def _ours(tuned: TunedModel, pairs: Sequence[Pair], decoding: DecodingSpec) -> list[str]:
    replies = generate(tuned, pairs, decoding, WIDTHS, _POSITIONS, seed=0)
    return [reply.reply for reply in replies]


def _in_turn(
    tuned: TunedModel, folders: Sequence[Path], pairs: Sequence[Pair], decoding: DecodingSpec
) -> Replies:
    replies = []
    base: Any = tuned.model
    for folder in folders:
        model = load_adapter(base, folder)
        model.generation_config = base.generation_config
        replies.append(_ours(TunedModel(model, tuned.tokenizer, folder, 0, 0), pairs, decoding))
        model.unload()
    return replies


def _together(
    tuned: TunedModel, folders: Sequence[Path], pairs: Sequence[Pair], decoding: DecodingSpec
) -> Replies:
    """As `evaluators/together.py` does, less the files of trials."""
    base: Any = tuned.model
    with row_adapters(base, folders) as adapters, torch.inference_mode():
        model = CausalModel(tuned, adapters)
        asked = [Questions(tuned, model, pairs, decoding, WIDTHS, _POSITIONS) for _ in folders]
        prompts = [
            replace(prompt, member=member, number=member * len(pairs) + prompt.number)
            for member, questions in enumerate(asked)
            for prompt in questions.open()
        ]
        shared = replace(decoding, eval_batch_size=len(folders) * decoding.eval_batch_size)
        for group in decode_batches(model, prompts, shared, never):
            for (beam, number), tokens in group:
                asked[number // len(pairs)].answer({(beam, number % len(pairs)): tokens})
    return [[reply.reply for reply in questions.in_order()] for questions in asked]


def _transformers(
    tuned: TunedModel, pairs: Sequence[Pair], decoding: DecodingSpec, batch: int
) -> list[str]:
    """Replies by transformers, left-padded, in batches of prompts of like length."""
    model: Any = tuned.model
    stops = {f"w{token}" for token in model.generation_config.eos_token_id}
    order = sorted(range(len(pairs)), key=lambda number: len(pairs[number].prompt.split()))
    replies: dict[tuple[int, int], str] = {}
    for width in WIDTHS:
        for start in range(0, len(pairs), batch):
            numbers = order[start : start + batch]
            inputs = tuned.tokenizer(
                [pairs[number].prompt for number in numbers],
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
                    early_stopping=False if width > 1 else None,
                    max_new_tokens=decoding.max_new_tokens,
                    pad_token_id=0,
                )
            rows = output[:, inputs["input_ids"].shape[1] :].tolist()
            for number, row in zip(numbers, rows, strict=True):
                words = []
                for token in row:
                    if f"w{token}" in stops:
                        break
                    words.append(f"w{token}")
                replies[width, number] = " ".join(words)
    return [replies[width, number] for width in WIDTHS for number in range(len(pairs))]


if __name__ == "__main__":
    main()
