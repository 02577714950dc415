"""On a GPU: 16 LoRA trials at batch 1 trained apart and together, and decoding, in bf16 and fp32.

    python -m benchmarks.gpu                       # CUDA, at most 9 minutes
    python -m benchmarks.gpu --device cpu --tiny   # the same code on a small model

Models have the shapes of GPT-2 medium and large and random weights. Apart: TRL's SFTTrainer on a PEFT
model, loaded for each trial, one after the other (`sweep/plain_ray.py` without Ray); as each takes as
long as the next, a few stand for all. Together: `trainers.fused`, all trials at once. Both are timed from the
files of the base model to the saved adapters. Decoding: our engine against `generate` in batches sorted by
length, beam widths 1, 2 and 4, weights in the precision that is named.

What does not fit in the time is left out and said.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, set_seed

from benchmarks.results import describe_machine, write_results
from benchmarks.sweep import plain_ray
from benchmarks.sweep.data import Lengths, write_data
from benchmarks.sweep.grids import plain_settings, plain_trial
from benchmarks.sweep.models import make_random_gpt2
from benchmarks.sweep.operations import count_decoding, count_training, measure_rate
from benchmarks.sweep.work import Reader, lora_adapter, read_gpt2
from corpora.dialogue import PairSplits
from corpora.loaders import build_pairs
from corpora.read import read_corpus
from evaluators.decoding import generate
from search_spaces.spec import (
    CorpusSpec,
    DecodingSpec,
    DeltaSettings,
    SplitSpec,
    TrainingSpec,
    TrialSpec,
)
from trainers.laptop_models import LaptopModel
from trainers.progress import EpochReport
from trainers.task import TrainingTask
from trainers.tuned import TunedModel

Row = dict[str, Any]
Precision = Literal["bf16", "fp32"]

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_FUSED = "trainers.fused"
_LOSS_TOLERANCE: dict[Precision, float] = {"bf16": 2e-2, "fp32": 1e-3}
"""Relative, of a validation loss: other kernels, another order of sums."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    shapes: dict[str, LaptopModel]
    embeddings: int | None
    """Rows of the embedding; absent: those of the tokenizer."""
    trials: int
    apart: int
    """Trials that are trained apart."""
    steps: int
    prompts: int
    new_tokens: int
    side: int
    """Of the matrices by which the device is measured."""


_PAPER = Size(
    {
        "medium": LaptopModel(n_layer=24, n_embd=1024, n_head=16, epochs=0),
        "large": LaptopModel(n_layer=36, n_embd=1280, n_head=20, epochs=0),
    },
    embeddings=50257,
    trials=16,
    apart=3,
    steps=60,
    prompts=48,
    new_tokens=48,
    side=8192,
)
_TINY = Size(
    {"tiny": LaptopModel(n_layer=2, n_embd=64, n_head=2, epochs=0)},
    embeddings=None,
    trials=4,
    apart=2,
    steps=6,
    prompts=6,
    new_tokens=8,
    side=256,
)


@dataclass(frozen=True)
class Bench:
    """A base model in a folder, and what is done with it."""

    name: str
    precision: Precision
    device: str
    size: Size
    folder: Path
    model: Path
    reader: Reader
    pairs: PairSplits
    lengths: Lengths
    data: Path
    rate: float
    """Operations a second of the device in this precision."""

    def specs(self) -> list[TrialSpec]:
        """The grid: learning rates and ranks over one base."""
        return [
            TrialSpec(
                model=str(self.model),
                method=DeltaSettings(peft_type="lora", rank=4 * 2 ** (number % 2)),
                training=TrainingSpec(
                    learning_rate=1e-4 * (1 + number), max_length=144, precision=self.precision
                ),
                decoding=DecodingSpec(max_new_tokens=self.size.new_tokens),
            )
            for number in range(self.size.trials)
        ]

    def row(self, what: str, seconds: float, each: int, operations: float) -> Row:
        """A line of the table."""
        return {
            "model": self.name,
            "precision": self.precision,
            "what": what,
            "s each": seconds / each,
            "efficiency": operations / (seconds * self.rate),
            "peak GiB": torch.cuda.max_memory_allocated() / 2**30 if self.on_gpu else None,
        }

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def time(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds of some work, and what it gives."""
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        begun = time.perf_counter()
        result = work()
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - begun, result


def main() -> None:
    """Measure what fits in the time, and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small model, to see that all runs")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument(
        "--results", type=Path, help="folder of the table; default: those of record"
    )
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: PyTorch finds no CUDA GPU here; `--device cpu --tiny` runs without one")
    end = time.perf_counter() + 60 * given.minutes
    plain_ray.import_everything()
    rows: list[Row] = []
    left_out = [] if _can_fuse() else [f"training together: this version has no {_FUSED}"]
    longest = 0.0
    with tempfile.TemporaryDirectory(prefix="gpu-benchmark-") as scratch:
        for bench in _benches(_TINY if given.tiny else _PAPER, given.device, Path(scratch)):
            for work in (compare_training, compare_decoding):
                begun = time.perf_counter()
                if begun + 1.5 * longest > end:
                    left_out.append(
                        f"{work.__name__} of {bench.name} in {bench.precision}: no time"
                    )
                    continue
                for row in work(bench):
                    print(row, flush=True)
                    rows.append(row)
                longest = max(longest, time.perf_counter() - begun)
    facts = {
        "command": f"python -m benchmarks.gpu {' '.join(sys.argv[1:])}".strip(),
        "s each": "seconds of one trial, or of one reply",
        "left out": "; ".join(left_out) or "nothing",
        "machine": describe_machine(),
    }
    folder = {"folder": given.results} if given.results else {}
    file = write_results("gpu_tiny" if given.tiny else "gpu", rows, facts, **folder)
    print(file.with_suffix(".md").read_text(encoding="utf-8"))


def _can_fuse() -> bool:
    return importlib.util.find_spec(_FUSED) is not None


def _benches(size: Size, device: str, folder: Path) -> Iterator[Bench]:
    split = SplitSpec(max_train_pairs=size.steps, max_valid_pairs=16, max_test_pairs=size.prompts)
    pairs = build_pairs(read_corpus(CorpusSpec()), "v1", split)
    precisions: tuple[Precision, ...] = ("bf16", "fp32")
    rates = {p: measure_rate(1.0, device, _DTYPES[p], size.side) for p in precisions}
    for name, shape in size.shapes.items():
        # Without dropout, so that losses can be compared: on a GPU its draws depend on the batch.
        model = make_random_gpt2(shape, folder / name, dropout=0.0, embeddings=size.embeddings)
        reader = read_gpt2(model)
        for precision in precisions:
            place = folder / f"{name}-{precision}"
            bench = Bench(
                name=name,
                precision=precision,
                device=device,
                size=size,
                folder=place,
                model=model,
                reader=reader,
                pairs=pairs,
                lengths=Lengths((), (), {}, {}),
                data=place / "data",
                rate=rates[precision],
            )
            lengths = write_data(pairs, reader.tokenizer, bench.specs()[0], bench.data)
            yield replace(bench, lengths=lengths)


def compare_training(bench: Bench) -> Iterator[Row]:
    """Trials trained apart, and all of them together.

    Args:
        bench: the base model and its data.

    Raises:
        ValueError: a trial came to another validation loss.
    """
    specs = bench.specs()
    operations = sum(
        count_training(
            bench.reader.shape,
            bench.lengths.train,
            bench.lengths.valid,
            spec.training.epochs,
            lora_adapter(bench.reader.shape, spec.method.rank),
        )
        for spec in specs
        if isinstance(spec.method, DeltaSettings)
    ) / len(specs)
    some = specs[: bench.size.apart]
    seconds, losses = bench.time(
        lambda: [_train_apart(bench, spec, number) for number, spec in enumerate(some)]
    )
    yield bench.row("a trial apart", seconds, len(some), operations * len(some))
    if not _can_fuse():
        return
    seconds, together = bench.time(lambda: _train_together(bench, specs))
    apart = max(
        abs(one - other) / one for one, other in zip(losses, together[: len(some)], strict=True)
    )
    if apart > _LOSS_TOLERANCE[bench.precision]:
        raise ValueError(f"losses together are {apart:.2g} from those apart")
    row = bench.row("a trial together", seconds, len(specs), operations * len(specs))
    yield row | {"loss apart": apart}


def _train_apart(bench: Bench, spec: TrialSpec, number: int) -> float:
    """Validation loss of a trial that TRL trains."""
    trial = plain_trial(str(number), spec, bench.data)
    config = plain_settings(spec, bench.model, Path(), 0)
    config |= {"device": bench.device, "trial": trial}
    set_seed(spec.seed)
    model = AutoModelForCausalLM.from_pretrained(bench.model, dtype=torch.float32)
    here = bench.folder / f"apart-{number}"
    _, losses = plain_ray.train(model, bench.reader.tokenizer, config, bench.data, here)
    return losses["valid"]


def _train_together(bench: Bench, specs: list[TrialSpec]) -> list[float]:
    """Validation losses of trials that are trained at once."""
    reports: dict[int, EpochReport] = {}
    tasks = [
        TrainingTask(
            spec=spec,
            source=bench.model,
            pairs=bench.pairs,
            workdir=bench.folder / f"together-{number}",
            on_epoch=partial(reports.__setitem__, number),
        )
        for number, spec in enumerate(specs)
    ]
    for task in tasks:
        task.workdir.mkdir(parents=True)
    for ended in importlib.import_module(_FUSED).train_fused(tasks):
        if ended.error is not None:
            raise ended.error
    return [reports[number].valid_loss for number in range(len(specs))]


def compare_decoding(bench: Bench) -> Iterator[Row]:
    """Replies by `generate`, and by our engine.

    Args:
        bench: the base model and its prompts.
    """
    spec = bench.specs()[0]
    decoding, widths = spec.decoding, spec.decoding.beams
    model: Any = AutoModelForCausalLM.from_pretrained(bench.model, dtype=_DTYPES[bench.precision])
    model.to(bench.device).eval()
    config = plain_settings(spec, bench.model, Path(), 0)
    prompts = plain_ray.read_json(bench.data, "test_prompts.json")
    tokenizer, shape = bench.reader.tokenizer, bench.reader.shape
    tuned = TunedModel(model, tokenizer, bench.model, 0, 0)

    def theirs() -> list[str]:
        return [
            text
            for width in widths
            for text in plain_ray.generate(model, tokenizer, prompts, width, config)
        ]

    def ours() -> list[str]:
        replies = generate(
            tuned, bench.pairs.test, decoding, widths, spec.training.max_length, spec.seed
        )
        return [reply.reply for reply in replies]

    # Weights that are drawn seldom end a text: every reply is taken to be as long as it may be.
    operations = sum(
        count_decoding(
            shape,
            bench.lengths.prompts["test", pair.pair_id],
            [(width, decoding.max_new_tokens) for width in widths],
        )
        for pair in bench.pairs.test
    )
    theirs(), ours()  # The first calls pay for kernels.
    seconds, expected = bench.time(theirs)
    yield bench.row("a reply by generate", seconds, len(expected), operations)
    seconds, replies = bench.time(ours)
    other = sum(one != two for one, two in zip(expected, replies, strict=True))
    row = bench.row("a reply by ours", seconds, len(replies), operations)
    yield row | {"replies apart": f"{other}/{len(replies)}"}


if __name__ == "__main__":
    main()
