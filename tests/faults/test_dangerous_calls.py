"""The program's own source: nothing in it runs what it reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("search_spaces", "corpora", "trainers", "evaluators", "reports", "cluster", "orchestrator")
NEVER = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen"),
    *("pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads", "joblib.load"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "np.load", "pd.read_pickle"),
    *("nltk.data.load", "sent_tokenize", "torch.jit.load", "torch.hub.load"),
    *("apply_chat_template", "shutil.unpack_archive", "tarfile.open", "input"),
}
NEEDED = {
    "torch.load": ("weights_only", True),
    "AutoTokenizer.from_pretrained": ("trust_remote_code", False),
    "AutoModelForCausalLM.from_pretrained": ("trust_remote_code", False),
    "word_tokenize": ("preserve_line", True),  # Else nltk loads a tokenizer of sentences.
}
"""Argument that must be given, and its harmless value."""


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    for room in ROOMS:
        for file in sorted((ROOT / room).glob("**/*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    place = f"{file.relative_to(ROOT)}:{node.lineno}"
                    yield place, ast.unparse(node.func), node


def arguments(call: ast.Call) -> dict[str | None, object]:
    return {
        keyword.arg: keyword.value.value
        for keyword in call.keywords
        if isinstance(keyword.value, ast.Constant)
    }


def test_nothing_that_is_read_is_run() -> None:
    found = list(calls())
    assert len(found) > 1000
    for place, name, call in found:
        assert name not in NEVER, place
        given = arguments(call)
        assert given.get("shell") is not True, place
        assert given.get("trust_remote_code", False) is False, place
        if name in NEEDED:
            argument, harmless = NEEDED[name]
            assert given.get(argument) is harmless, f"{place}: {name} without {argument}"


def test_the_check_sees_the_calls_that_it_is_about() -> None:
    names = {name for _, name, _ in calls()}
    assert names >= NEEDED.keys() - {"word_tokenize"}
