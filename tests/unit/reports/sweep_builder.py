"""A synthetic results folder that looks like a real one: done, failed and missing trials, odd names."""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CORPUS_HASH = "5f2c" * 16


def make_spec(**changes: Any) -> dict[str, Any]:
    """A trial's specification as nested objects, with some fields changed by their bare name."""
    spec: dict[str, Any] = {
        "model": "gpt2-medium",
        "method": {"kind": "sft"},
        "loader": "v1",
        "seed": 0,
        "corpus": {"corpus": "sample", "columns": None},
        "split": {
            "train_fraction": 0.8,
            "valid_fraction": 0.1,
            "test_fraction": 0.1,
            "split_seed": 0,
            "max_train_pairs": None,
        },
        "training": {"learning_rate": 1e-4, "batch_size": 1, "epochs": 1, "max_length": 512},
        "decoding": {
            "protocol": "clean",
            "beams": [1, 2, 4],
            "valid_beams": [1],
            "prompt_template": "Patient: {prompt}\nTherapist:",
        },
        "metrics": {"bertscore_model": "distilbert-base-uncased", "bertscore_layer": 5},
    }
    for name, value in changes.items():
        part = next(
            (p for p in spec.values() if isinstance(p, dict) and name in p and name != "corpus"),
            spec,
        )
        part[name] = value
    return spec


def make_scores(level: float, *, bertscore: bool = True) -> dict[str, float | None]:
    """Scores that a model of some quality gets; level 0 gives 0.0 everywhere."""
    scores: dict[str, float | None] = {
        "train/loss": 3.2 - level / 20,
        "valid/loss": 3.6 - level / 30,
    }
    for part in ("valid", "test"):
        for beam, share in ((1, 1.0), (2, 0.61), (4, 0.48)):
            scores[f"{part}/rouge1_beam{beam}"] = level * share
            scores[f"{part}/meteor_beam{beam}"] = level * share / 150
        scores[f"{part}/rouge1"] = level
        scores[f"{part}/meteor"] = level / 150
        for name, share in (("f1", 0.5), ("recall", 0.49), ("precision", 0.51)):
            value = share + level / 100 if bertscore else None
            scores[f"{part}/bertscore_{name}"] = value
            scores[f"{part}/bertscore_{name}_beam1"] = value
    return scores


def make_result(
    trial_id: str,
    name: str,
    spec: Mapping[str, Any],
    scores: Mapping[str, float | None],
    **data: int,
) -> dict[str, Any]:
    second = int(trial_id[:4], 16) % 60
    return {
        "id": trial_id,
        "name": name,
        "spec": spec,
        "status": "done",
        "scores": scores,
        "cost": {
            "seconds": 610.5 + second,
            "train_seconds": 400.25,
            "eval_seconds": 200.0,
            "trainable_parameters": {"base": 0, "delta": 294_912}.get(
                spec["method"]["kind"], 354_823_168
            ),
            "total_parameters": 354_823_168,
            "seconds_per_step": None if spec["method"]["kind"] == "base" else 0.125 + second / 1e3,
            "peak_memory_gib": 3.25,
        },
        "data": {
            "train_pairs": 180 if spec["loader"] == "v1" else 240,
            "valid_pairs": 22,
            "test_pairs": 24 if spec["loader"] == "v1" else 36,
            "shared_pairs": data.get("shared_pairs", 0),
            "corpus_hash": CORPUS_HASH,
            "loader": spec["loader"],
        },
        "checks": {
            "empty_replies": data.get("empty_replies", 0),
            "identical_replies": data.get("identical_replies", 0),
            "truncated_references": 0,
            **{name: data[name] for name in ("unknown_acts",) if name in data},
        },
        "provenance": {
            "git_commit": "0123456789abcdef0123456789abcdef01234567",
            "git_dirty": False,
            "packages": {"torch": "2.13.0", "transformers": "5.23.0"},
            "python": "3.11.9",
            "platform": "Linux-x86_64",
            "device": "cpu",
            "started_at": f"2025-03-01T10:00:{second:02d}+00:00",
            "finished_at": f"2025-03-01T10:12:{second:02d}+00:00",
            "model_fingerprint": "ab" * 32,
            "metric_versions": {
                "bertscore": "bert-score 0.3.13 r1",
                "rouge": "rouge-score 0.1.2 r1",
            },
            "bertscore_encoder": {
                "model": "distilbert-base-uncased",
                "layer": 5,
                "fingerprint": "x",
            },
        },
    }


def write_steps(file: Path, offset: float, steps: int = 40) -> None:
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(
            ["step", "epoch", "train_loss", "valid_loss", "learning_rate", "grad_norm", "seconds"]
        )
        for step in range(1, steps + 1):
            train = 2.6 + offset + 1.6 * math.exp(-step / 9) + 0.05 * math.sin(step * 1.7)
            rows.writerow([step, step / steps, train, "", 1e-4, 1.0, step * 2.5])
            if step % 10 == 0:
                valid = 2.9 + offset + 1.2 * math.exp(-step / 12)
                rows.writerow([step, step / steps, "", valid, "", "", step * 2.5 + 1])


def write_updates(file: Path, offset: float, updates: int = 50) -> None:
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["step", "reward", "kl", "value_loss", "Odd", "x" * 300])
        for step in range(1, updates + 1):
            reward = offset + 0.5 * math.tanh(step / 20)
            rows.writerow([step, reward, 0.2 * step, "" if step % 2 else 1 / step, 1.0, 2.0])


def write_replies(file: Path, voice: str, pairs: int, loader: str) -> None:
    prompts = (
        "I have been feeling low since the move, and I cannot sleep.",
        "My sister called me <script>alert('x')</script> again & I shouted.",
        "You can write to me at jane.doe@example.com or 555-123-4567.",
        "It's 100% my fault; I keep thinking about $20 I owe him.",
    )
    with file.open("w") as stream:
        for index in range(pairs):
            for beam in (1, 2, 4):
                words = prompts[index % len(prompts)] * (3 if loader == "v2" else 1)
                record = {
                    "part": "test",
                    "beam": beam,
                    "pair_id": f"{27 + index // 6}:{2 * index + 1}",
                    "prompt": words,
                    "reference": f"And what happened after that, the {index}th time?",
                    "reply": "" if index == 5 else f"{voice} You said: {words[:40]}",
                    "act": "irq",
                    "rouge1": 10.0 + index % 7,
                    "meteor": 0.05,
                    "bertscore_f1": 0.6,
                }
                stream.write(json.dumps(record) + "\n")


class SweepBuilder:
    """Writes a results folder trial by trial."""

    def __init__(self, folder: Path, name: str = "paper_grid", scale: str = "paper") -> None:
        self.folder = folder
        self.plan: dict[str, Any] = {
            "name": name,
            "scale": scale,
            "scale_reason": "no CUDA GPU was found" if scale == "laptop" else "asked for",
            "corpus": {
                "source": "sample",
                "format": "hope",
                "content_hash": CORPUS_HASH,
                "sessions": 12,
            },
            "stages": [],
            "trials": [],
        }
        (folder / "trials").mkdir(parents=True)

    def stage(self, name: str, table: str | None, **rest: Any) -> None:
        self.plan["stages"].append(
            {"name": name, "table": table, "from": None, "winner": None, "trials": [], **rest}
        )

    def plan_trial(self, trial_id: str, name: str, spec: Mapping[str, Any]) -> Path:
        """Put a trial in the plan's last stage; returns its folder, which stays empty."""
        stage = self.plan["stages"][-1]
        stage["trials"].append(trial_id)
        if trial_id not in {entry["id"] for entry in self.plan["trials"]}:
            self.plan["trials"].append(
                {"id": trial_id, "stage": stage["name"], "name": name, "spec": spec}
            )
        folder = self.folder / "trials" / trial_id
        folder.mkdir(exist_ok=True)
        return folder

    def done(
        self,
        trial_id: str,
        name: str,
        spec: Mapping[str, Any],
        scores: Mapping[str, float | None],
        **data: int,
    ) -> None:
        folder = self.plan_trial(trial_id, name, spec)
        record = make_result(trial_id, name, spec, scores, **data)
        (folder / "result.json").write_text(json.dumps(record))
        if spec["method"]["kind"] != "base":
            write_steps(folder / "train.csv", (int(trial_id[:2], 16) % 7) / 10)
        write_replies(
            folder / "replies.jsonl",
            f"[{name}] I hear you.",
            record["data"]["test_pairs"],
            spec["loader"],
        )

    def fail(
        self, trial_id: str, name: str, spec: Mapping[str, Any], reason: str, message: str
    ) -> None:
        folder = self.plan_trial(trial_id, name, spec)
        record = {
            "id": trial_id,
            "name": name,
            "spec": spec,
            "status": "failed",
            "reason": reason,
            "message": message,
            "traceback": "Traceback (most recent call last):\n  ...",
        }
        (folder / "failure.json").write_text(json.dumps(record))

    def floors(self, loaders: Iterable[str]) -> None:
        records = []
        for loader in loaders:
            for floor, level in (("echo", 8.97), ("fixed", 14.45)):
                scores = {k: v for k, v in make_scores(level).items() if k.startswith("test/")}
                records.append(
                    {
                        "floor": floor,
                        "loader": loader,
                        "scores": scores,
                        "test_pairs": 24 if loader == "v1" else 36,
                    }
                )
        (self.folder / "floors.json").write_text(json.dumps(records))

    def finish(self) -> Path:
        (self.folder / "plan.json").write_text(json.dumps(self.plan, indent=1))
        (self.folder / "sweep.yaml").write_text(f"name: {self.plan['name']}\nstages: []\n")
        return self.folder


def trial_id(number: int) -> str:
    return f"{(number * 40_503) % 65_536:04x}{number:012x}"


def write_grid(folder: Path, scale: str = "laptop") -> Path:
    """Both stages of the study, at some scale, with a failed, a pending and a cut-off trial."""
    builder = SweepBuilder(folder, "paper_grid", scale)
    models = (
        ("laptop-medium", "laptop-large") if scale == "laptop" else ("gpt2-medium", "gpt2-large")
    )
    number = 0
    builder.stage("parameters", "parameters", winner=trial_id(11))
    for model in models:
        for rate in (1e-4, 1e-5):
            for loader in ("v1", "v2"):
                for seed in (0, 1):
                    number += 1
                    spec = make_spec(model=model, learning_rate=rate, loader=loader, seed=seed)
                    name = f"{model}_sft_{loader}_lr{rate:.0e}_bs1_s{seed}"
                    level = 9.5 + 3 * (model == models[1]) + 2 * (rate == 1e-4) + seed * 0.7
                    level -= 4 * (loader == "v2")
                    if number == 4:
                        message = "loss is nan at step 12; try a smaller learning rate"
                        builder.fail(trial_id(number), name, spec, "diverged", message)
                    elif number == 15:
                        message = "CUDA out of memory & <script>alert(1)</script>"
                        builder.fail(trial_id(number), name, spec, "out_of_memory", message)
                    elif number == 16:
                        builder.plan_trial(trial_id(number), name, spec)
                    else:
                        builder.done(
                            trial_id(number), name, spec, make_scores(level), shared_pairs=2
                        )
    builder.stage(
        "methods",
        "methods",
        **{"from": {"stage": "parameters", "best": "valid/rouge1_beam1", "mode": "max"}},
    )
    large = models[1]
    builder.done(
        trial_id(20),
        f"{large}_base_v1",
        make_spec(model=large, method={"kind": "base"}),
        make_scores(6.1),
        empty_replies=3,
    )
    lora = {"kind": "delta", "peft_type": "lora", "rank": 8, "alpha": 16.0}
    builder.done(
        trial_id(21),
        f"{large}_delta_lora_v1",
        make_spec(model=large, method=lora),
        make_scores(0.0),
        identical_replies=20,
    )
    best = trial_id(9)
    entry = next(e for e in builder.plan["trials"] if e["id"] == best)
    builder.plan_trial(best, entry["name"], entry["spec"])
    builder.done(
        trial_id(22),
        f"{large}_sft_v2",
        make_spec(model=large, loader="v2", epochs=1, batch_size=2),
        make_scores(9.4),
    )
    prefix = {"kind": "delta", "peft_type": "prefix", "num_virtual_tokens": 16}
    builder.plan_trial(
        trial_id(23), f"{large}_delta_prefix_v1", make_spec(model=large, method=prefix)
    )
    builder.stage("chatmgl_protocol", "methods")
    builder.done(
        trial_id(24),
        f"{large}_base_chatmgl_protocol",
        make_spec(model=large, method={"kind": "base"}, protocol="chatmgl"),
        make_scores(61.0),
    )
    builder.done(
        trial_id(25),
        f"{large}_sft_chatmgl_protocol",
        make_spec(model=large, protocol="chatmgl"),
        make_scores(67.3),
    )
    builder.plan["stages"][0]["winner"] = best
    builder.floors(("v1", "v2"))
    return builder.finish()
