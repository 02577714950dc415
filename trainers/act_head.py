"""A head that says which dialogue act a reply is to have, or has: linear, on last hidden states.

While it is learnt, it is a part of its model, so that checkpoints and the optimiser have it; otherwise
it stands beside a model that knows nothing of it, and in files of its own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from corpora.acts import UNKNOWN_ACT
from trainers.encoding import IGNORED_LABEL

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "act_head"
"""The part of a model that it is while it is learnt, and how its files begin."""
_WEIGHTS, _LABELS = f"{_NAME}.safetensors", f"{_NAME}.json"
_INITIAL_STD = 0.02
"""As GPT-2's own layers begin."""

HEAD_CODE = f"""\
head = load_file(Path(FOLDER) / "{_WEIGHTS}")
acts = json.loads((Path(FOLDER) / "{_LABELS}").read_text(encoding="utf-8"))["acts"]
with torch.no_grad():
    state = model.base_model(**inputs).last_hidden_state[0, -1]
act = acts[int((head["weight"] @ state + head["bias"]).argmax())]
"""
"""The lines of a model card that predict the act of the reply to a prompt."""

HEAD_IMPORTS = """\
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
"""
"""What these lines need."""

HEAD_TEXT = f"""
`{_WEIGHTS}` holds a linear layer on the last hidden states, which was tuned with the model and then
left as it was. At the last token of a prompt it predicts the dialogue act of the reply (`act` above,
one of those in `{_LABELS}`); at the last token of a reply, the act that the reply is. The
replies do not depend on it.
"""
"""What a model card says of the head."""


class ActHead(nn.Linear):
    """Scores of A acts from hidden states of width H.

    Args:
        acts: A labels, in the order of the scores.
        width: H.
        device: where its weights are.
    """

    def __init__(self, acts: Sequence[str], width: int, device: torch.device) -> None:
        super().__init__(width, len(acts), device=device, dtype=torch.float32)
        self.acts = tuple(acts)
        nn.init.normal_(self.weight, std=_INITIAL_STD)
        nn.init.zeros_(self.bias)

    def known(self, act: str | None) -> str:
        """The act itself where the head has a score for it, else `unknown`.

        Args:
            act: of a reference; may be absent.
        """
        return act if act is not None and act in self.acts else UNKNOWN_ACT


def attach_head(model: PreTrainedModel, head: ActHead) -> None:
    """Make a head a part of its model: trained with it, and saved in its checkpoints.

    Args:
        model: changed in place.
        head: of its width.
    """
    setattr(model, _NAME, head)


def detach_head(model: PreTrainedModel) -> ActHead:
    """Take the head off a model that has one.

    Args:
        model: changed in place; as loading it would give it.
    """
    head = find_head(model)
    if head is None:
        raise ValueError(f"a {type(model).__name__} without an act head")
    delattr(model, _NAME)
    return head


def find_head(model: nn.Module) -> ActHead | None:
    """The head that is a part of a model; None where there is none.

    Args:
        model: of any kind.
    """
    head = getattr(model, _NAME, None)
    return head if isinstance(head, ActHead) else None


def new_head(model: PreTrainedModel, acts: Sequence[str]) -> ActHead:
    """A head with random weights, as wide as the states that the model's output layer reads.

    Args:
        model: whose states it reads.
        acts: labels, in the order of the scores.
    """
    output: Any = model.get_output_embeddings()
    return ActHead(acts, int(output.weight.shape[1]), output.weight.device)


def save_head(head: ActHead, folder: Path) -> None:
    """Write a head beside its model: `act_head.safetensors`, and its labels in `act_head.json`.

    Args:
        head: of the model that is saved there.
        folder: the model's.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu() for name, tensor in head.state_dict().items()}
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    text = json.dumps({"acts": head.acts}, indent=1)
    (folder / _LABELS).write_text(text, encoding="utf-8")


def load_head(model: PreTrainedModel, folder: Path) -> ActHead:
    """The head that `save_head` wrote, in evaluation mode, on the model's device.

    Args:
        model: whose states it reads.
        folder: the model's.
    """
    from safetensors.torch import load_file

    acts = json.loads((folder / _LABELS).read_text(encoding="utf-8"))["acts"]
    head = new_head(model, acts)
    head.load_state_dict(load_file(folder / _WEIGHTS))
    return head.eval()


@contextlib.contextmanager
def last_states(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Within it, the last hidden states [B, T, H] of each forward pass of a model, in their order.

    Args:
        model: a causal language model; the passes may be those of its inner model alone.
    """
    states: list[torch.Tensor] = []
    inner: Any = model.base_model
    hook = inner.register_forward_hook(
        lambda module, inputs, output: states.append(output.last_hidden_state)
    )
    try:
        yield states
    finally:
        hook.remove()


def summed_act_loss(
    head: ActHead, states_bth: torch.Tensor, act_labels_bt: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of the acts in nats, summed over all positions that have a label.

    Args:
        head: the scores' source.
        states_bth: [B, T, H] last hidden states.
        act_labels_bt: [B, T] numbers of acts; -100 where nothing is read.
    """
    read_bt = act_labels_bt != IGNORED_LABEL
    return nn.functional.cross_entropy(
        head(states_bth[read_bt].float()), act_labels_bt[read_bt], reduction="sum"
    )


@torch.inference_mode()
def act_scores(
    model: PreTrainedModel, head: ActHead, texts: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Scores [B, A] of the acts at the last token of each text, fp32.

    Args:
        model: in evaluation mode.
        head: the model's.
        texts: B texts' token ids, at least one each.
    """
    inner: Any = model.base_model
    longest = max(map(len, texts))
    device = head.weight.device
    ids_bt = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts], device=device)
    last_b = torch.tensor([len(text) - 1 for text in texts], device=device)
    # Padded on the right: what is read does not look there.
    mask_bt = (torch.arange(longest, device=device)[None] <= last_b[:, None]).long()
    states_bth = inner(input_ids=ids_bt, attention_mask=mask_bt, use_cache=False).last_hidden_state
    rows_b = torch.arange(len(texts), device=device)
    scores: torch.Tensor = head(states_bth[rows_b, last_b].float())
    return scores
