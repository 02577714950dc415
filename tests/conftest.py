from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.tiny import make_tiny_folder

# Commands that tests start elsewhere run these sources too, whatever the environment has installed.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)

# A shell starts what it puts in the background deaf to these; what is tested here listens.
for ignored in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        default = signal.default_int_handler if ignored is signal.SIGINT else signal.SIG_DFL
        signal.signal(ignored, default)

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random GPT-2; never written to."""
    return make_tiny_folder("gpt2", tmp_path_factory.mktemp("models") / "tiny-gpt2")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Llama with grouped keys and values; never written to."""
    return make_tiny_folder("llama", tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves this machine: a request that is not to a local server fails at once."""
    look_up = socket.getaddrinfo

    def local_only(host: Any, *rest: Any, **named: Any) -> Any:
        if host in ("127.0.0.1", "localhost"):
            return look_up(host, *rest, **named)
        raise OSError(f"the test asked for {host!r}")

    monkeypatch.setattr(socket, "getaddrinfo", local_only)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
