from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from search_spaces.spec import DeltaSettings, SftSettings
from tests.tiny import tiny_spec
from trainers.fusing import fuse_key

LORA = DeltaSettings(peft_type="lora")


@pytest.mark.parametrize(
    "training",
    [
        {"learning_rate": 1e-5},
        {"batch_size": 7, "gradient_accumulation_steps": 3},
        {"epochs": 4, "max_steps": None, "warmup_steps": 3, "lr_scheduler": "cosine"},
        {"weight_decay": 0.1, "max_grad_norm": 0.0, "max_length": 99, "packing": True},
        {"optimizer": "adamw_torch_fused", "loss_on": "all"},
    ],
)
def test_most_settings_may_differ(training: dict[str, Any]) -> None:
    other = DeltaSettings(peft_type="lora", rank=3, alpha=5.0, dropout=0.3)
    key = fuse_key(tiny_spec(method=LORA))
    assert key is not None
    assert fuse_key(tiny_spec(method=other, seed=9, **training)) == key


def test_what_must_agree() -> None:
    keys = {
        fuse_key(tiny_spec(method=LORA)),
        fuse_key(tiny_spec(method=LORA, precision="bf16")),
        fuse_key(tiny_spec(method=DeltaSettings(peft_type="lora", target_modules=("c_fc",)))),
    }
    assert None not in keys
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("method", "training"),
    [
        (SftSettings(), {}),
        (DeltaSettings(peft_type="prefix"), {}),
        (LORA, {"optimizer": "sgd"}),
        (LORA, {"precision": "fp16"}),
        (LORA, {"gradient_checkpointing": True}),
    ],
)
def test_what_trains_alone(method: Any, training: dict[str, Any]) -> None:
    assert fuse_key(tiny_spec(method=method, **training)) is None


def test_it_is_known_without_torch() -> None:
    code = "import sys, trainers.fusing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
