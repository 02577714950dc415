"""A grid of trials as the documentation of Ray Tune, TRL and PEFT teaches: what a sweep is measured against.

    python benchmarks/sweep/plain_ray.py JOB.json

Nothing of this project is imported. The job names a model folder, an encoder for BERTScore, the
settings that all trials share, the trials, and folders of prompt-completion data; results.json is
written beside it. What differs from the documentation differs in favour of speed: no dashboard, no
gradient checkpointing, heavy imports in the workers alone, prompts sorted by length for `generate`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray import tune

Row = dict[str, str]
"""`prompt` in its template, and the `completion` to it."""


def main() -> None:
    """Run the job's trials and write their results."""
    job_file = Path(sys.argv[1]).resolve()
    job = json.loads(job_file.read_text(encoding="utf-8"))
    ray.init(num_cpus=job["cpus"], include_dashboard=False)
    tuner = tune.Tuner(
        tune.with_resources(run_trial, {"cpu": 1}),
        param_space={**job["settings"], "device": "cpu", "trial": tune.grid_search(job["trials"])},
        run_config=tune.RunConfig(name="tune", storage_path=str(job_file.parent), verbose=1),
    )
    results = tuner.fit()
    if results.errors:
        sys.exit(f"{results.num_errors} trials failed: {results.errors[0]}")
    rows = [
        {"id": result.config["trial"]["id"], "replies": read_json(result.path, "replies.json")}
        | {key: result.metrics[key] for key in ("losses", "scores", "cpu_s")}
        for result in results
    ]
    job_file.with_name("results.json").write_text(json.dumps(rows), encoding="utf-8")
    ray.shutdown()


def run_trial(config: dict[str, Any]) -> None:
    """Train one trial's model, have it reply at every beam width, score the replies, report."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    trial, clock = config["trial"], CpuClock()
    data = Path(trial["data"])
    import_everything()
    clock.lap("import")
    set_seed(trial["seed"])
    tokenizer = AutoTokenizer.from_pretrained(config["model"])
    model = AutoModelForCausalLM.from_pretrained(config["model"], dtype="float32")
    clock.lap("load")
    here = Path(tune.get_context().get_trial_dir())
    trainer, losses = train(model, tokenizer, config, data, here)
    clock.lap("train")

    model = trainer.model.eval()
    replies, references = [], []
    for part, beams in (("valid", config["valid_beams"]), ("test", config["beams"])):
        rows = read_json(data, f"{part}_prompts.json")
        for beam in beams:
            texts = generate(model, tokenizer, rows, beam, config)
            replies += [
                {"part": part, "beam": beam, "pair_id": row["pair_id"], "reply": text}
                for row, text in zip(rows, texts, strict=True)
            ]
            references += [row["completion"] for row in rows]
    clock.lap("generate")

    for reply, found in zip(
        replies, score([one["reply"] for one in replies], references, config), strict=True
    ):
        reply.update(found)
    (here / "replies.json").write_text(json.dumps(replies), encoding="utf-8")
    clock.lap("score")
    tune.report({"losses": losses, "scores": means(replies), "cpu_s": clock.laps})


def train(
    model: Any, tokenizer: Any, config: dict[str, Any], data: Path, here: Path
) -> tuple[Any, dict[str, float]]:
    """The trainer with the tuned model, and losses in nats per token of the completions."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    trial = config["trial"]
    valid = Dataset.from_list(read_json(data, "valid.json"))
    if trial["method"] not in ("sft", "base"):
        from peft import get_peft_model

        model = get_peft_model(model, peft_config(trial, model))
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(here / "model"),
            per_device_train_batch_size=trial["batch_size"],
            per_device_eval_batch_size=len(valid),
            num_train_epochs=trial["epochs"],
            learning_rate=trial["learning_rate"],
            lr_scheduler_type="linear",
            seed=trial["seed"],
            data_seed=trial["seed"],
            max_length=config["max_length"],
            completion_only_loss=True,
            bf16=config["precision"] == "bf16",
            gradient_checkpointing=False,
            use_cpu=config["device"] == "cpu",
            dataloader_pin_memory=False,
            eval_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(read_json(data, "train.json")),
        eval_dataset=valid,
        processing_class=tokenizer,
    )
    losses = {}
    if trial["method"] != "base":
        losses["train"] = trainer.train().training_loss
        trainer.save_model()
    losses["valid"] = trainer.evaluate()["eval_loss"]
    return trainer, losses


def peft_config(trial: dict[str, Any], model: Any) -> Any:
    """What PEFT is to add to the model."""
    import peft

    causal, tokens = peft.TaskType.CAUSAL_LM, trial["num_virtual_tokens"]
    match trial["method"]:
        case "lora":
            return peft.LoraConfig(
                task_type=causal, r=trial["rank"], lora_alpha=trial["alpha"], fan_in_fan_out=True
            )
        case "ia3":
            return peft.IA3Config(task_type=causal, fan_in_fan_out=True)
        case "ln-tuning":
            return peft.LNTuningConfig(task_type=causal)
        case "prefix":
            return peft.PrefixTuningConfig(task_type=causal, num_virtual_tokens=tokens)
        case "prompt":
            return peft.PromptTuningConfig(task_type=causal, num_virtual_tokens=tokens)
        case "p-tuning":
            return peft.PromptEncoderConfig(
                task_type=causal,
                num_virtual_tokens=tokens,
                encoder_hidden_size=model.config.hidden_size,
            )
        case other:
            raise ValueError(f"no such method: {other}")


def generate(
    model: Any, tokenizer: Any, rows: list[Row], beam: int, config: dict[str, Any]
) -> list[str]:
    """A reply to each prompt, in their order; longest prompts first, so that batches are of like length."""
    import torch

    lengths = [len(ids) for ids in tokenizer([row["prompt"] for row in rows])["input_ids"]]
    order = sorted(range(len(rows)), key=lambda place: -lengths[place])
    replies = [""] * len(rows)
    for places in batched(order, config["eval_batch_size"]):
        inputs = tokenizer(
            [rows[place]["prompt"] for place in places],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(model.device)
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                num_beams=beam,
                do_sample=False,
                max_new_tokens=config["max_new_tokens"],
                pad_token_id=tokenizer.pad_token_id,
            )
        new = output[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        for place, text in zip(places, texts, strict=True):
            replies[place] = text.strip()
    return replies


def score(
    replies: list[str], references: list[str], config: dict[str, Any]
) -> list[dict[str, float]]:
    """ROUGE (F x 100), METEOR and BERTScore (0..1) of each reply."""
    from bert_score import BERTScorer
    from nltk.tokenize import word_tokenize
    from nltk.translate.meteor_score import single_meteor_score
    from rouge_score.rouge_scorer import RougeScorer

    references = [reference.strip() for reference in references]
    rouge = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    rows = []
    for reply, reference in zip(replies, references, strict=True):
        row = {name: 100 * one.fmeasure for name, one in rouge.score(reference, reply).items()}
        words = [word_tokenize(text.lower(), preserve_line=True) for text in (reference, reply)]
        row["meteor"] = single_meteor_score(*words) if all(words) else 0.0
        rows.append(row | {"bertscore_f1": 0.0})
    # bert-score knows no empty texts.
    spoken = [place for place, reply in enumerate(replies) if reply]
    if spoken:
        bert = BERTScorer(model_type=config["encoder"], num_layers=config["encoder_layer"])
        _, _, f1 = bert.score(
            [replies[place] for place in spoken], [references[place] for place in spoken]
        )
        for place, value in zip(spoken, f1.tolist(), strict=True):
            rows[place]["bertscore_f1"] = value
    return rows


def means(replies: list[dict[str, Any]]) -> dict[str, float]:
    """Mean scores by `part/metric_beam`."""
    groups: dict[str, list[float]] = {}
    for reply in replies:
        for metric in ("rouge1", "rouge2", "rougeL", "meteor", "bertscore_f1"):
            groups.setdefault(f"{reply['part']}/{metric}_beam{reply['beam']}", []).append(
                reply[metric]
            )
    return {name: sum(values) / len(values) for name, values in groups.items()}


class CpuClock:
    """CPU seconds of this process, lap by lap."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = 0.0  # What starting the process took is part of the first lap.

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.laps[name] = now - self._last
        self._last = now


def import_everything() -> None:
    """Import what a trial uses, so that its time is told apart."""
    from bert_score import BERTScorer  # noqa: F401
    from datasets import Dataset  # noqa: F401
    from nltk.translate import meteor_score  # noqa: F401
    from peft import get_peft_model  # noqa: F401
    from rouge_score import rouge_scorer  # noqa: F401
    from trl import SFTTrainer  # noqa: F401


def batched(items: list[int], size: int) -> Iterator[list[int]]:
    """The items, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def read_json(folder: str | Path, name: str) -> Any:
    """What a JSON file holds."""
    return json.loads((Path(folder) / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
