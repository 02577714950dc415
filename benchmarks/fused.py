"""LoRA trainings one after another against the same trainings fused, in one run.

    python -m benchmarks.fused [--layers 4] [--width 128] [--members 8] [--examples 60]

Prints how many times the processor time and the wall time of the fused trainings the others take,
after asserting that their losses are the same. Times of a shared machine vary: read the ratios.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from corpora.dialogue import Pair, PairSplits
from search_spaces.spec import DeltaSettings, TrainingSpec, TrialSpec
from trainers.finished import Finished, read_finished, training_identity
from trainers.fused import train_fused
from trainers.quiet import quiet_libraries
from trainers.select import train
from trainers.task import TrainingTask

_POSITIONS = 128
_TOLERANCE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=2000)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--examples", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--ranks", type=int, nargs="+", default=[8])
    parser.add_argument("--dropout", type=float, default=0.1, help="the base's own")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    given = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        source = _small_model(given, place / "base")
        pairs = _pairs(given.examples, given.vocabulary)
        specs = _specs(given, source)
        warm_up = [_task(spec, source, pairs, place / "warm") for spec in specs[:1]]
        alone = [_task(s, source, pairs, place / f"alone{n}") for n, s in enumerate(specs)]
        fused = [_task(s, source, pairs, place / f"fused{n}") for n, s in enumerate(specs)]
        _train_each(warm_up)
        apart, together = (
            _timed(lambda: _train_each(alone)),
            _timed(lambda: train_fused(fused)),
        )
        furthest = max(
            _furthest(_finished(one), _finished(other))
            for one, other in zip(alone, fused, strict=True)
        )
    # Dropout is drawn in another order on a GPU.
    assert furthest < _TOLERANCE or (given.dropout and torch.cuda.is_available()), furthest
    print(
        f"{given.layers} layers of {given.width}, {given.members} members: "
        f"processor {apart[0] / together[0]:.2f} x, wall {apart[1] / together[1]:.2f} x; "
        f"losses within {furthest:.1e}"
    )


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the processor and of the clock."""
    began = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - began[0], time.perf_counter() - began[1]


def _train_each(tasks: list[TrainingTask]) -> None:
    for task in tasks:
        train(task.spec, task.source, task.pairs, task.workdir, task.on_epoch)


def _finished(task: TrainingTask) -> Finished:
    identity = training_identity(task.spec, task.source, task.pairs)
    found, _, why = read_finished(task.workdir, identity)
    assert found is not None, why
    return found


def _furthest(one: Finished, other: Finished) -> float:
    pairs = zip(one.rows, other.rows, strict=True)
    values = [((a.train_loss, b.train_loss), (a.valid_loss, b.valid_loss)) for a, b in pairs]
    return max(
        abs(a - b)
        for a, b in itertools.chain.from_iterable(values)
        if a is not None and b is not None
    )


def _task(spec: TrialSpec, source: Path, pairs: PairSplits, workdir: Path) -> TrainingTask:
    workdir.mkdir()
    return TrainingTask(spec, source, pairs, workdir, lambda _: None)


def _specs(given: argparse.Namespace, source: Path) -> list[TrialSpec]:
    cycle = zip(itertools.cycle(given.batch_sizes), itertools.cycle(given.ranks), strict=False)
    return [
        TrialSpec(
            model=str(source),
            method=DeltaSettings(peft_type="lora", rank=rank),
            seed=number,
            training=TrainingSpec(
                learning_rate=1e-4 * (1 + number),
                batch_size=batch_size,
                epochs=given.epochs,
                max_length=_POSITIONS,
                precision=given.precision,
            ),
        )
        for number, (batch_size, rank) in zip(range(given.members), cycle, strict=False)
    ]


def _small_model(given: argparse.Namespace, folder: Path) -> Path:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=given.vocabulary,
            n_positions=_POSITIONS,
            n_embd=given.width,
            n_layer=given.layers,
            n_head=max(1, given.width // 32),
            resid_pdrop=given.dropout,
            embd_pdrop=given.dropout,
            attn_pdrop=given.dropout,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    words = {f"w{number}": number for number in range(given.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w0").save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def _pairs(examples: int, vocabulary: int) -> PairSplits:
    """Dialogues of 20 to 90 tokens, about a third of them in the reply."""
    draw = random.Random(0)

    def text(words: int) -> str:
        return " ".join(f"w{draw.randrange(2, vocabulary)}" for _ in range(words))

    def pair(number: int) -> Pair:
        words = draw.randint(16, 86)
        reply = max(4, words // 3)
        return Pair(
            pair_id=f"s{number}:1",
            session=f"s{number}",
            prompt=text(words - reply),
            reference=text(reply),
            act=None,
        )

    valid = max(2, examples // 8)
    pairs = tuple(pair(number) for number in range(examples + valid))
    return PairSplits(train=pairs[:examples], valid=pairs[examples:], test=())


if __name__ == "__main__":
    main()
