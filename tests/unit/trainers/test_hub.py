from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from trainers.hub import (
    HubError,
    HubModel,
    cached_snapshot,
    describe,
    download,
    has_weights,
    missing_weights,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class LocalHub:
    """A server on this machine that answers as a test wants."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answer: Answer = lambda request: None


@pytest.fixture
def local_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    local = LocalHub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            local.requests.append((self.path, dict(self.headers)))
            local.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
        yield local
        server.shutdown()
        thread.join()


def saying(content: Any, status: int = 200) -> Answer:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def test_a_model_is_described(local_hub: LocalHub) -> None:
    local_hub.answer = saying({"sha": COMMIT, "siblings": [{"rfilename": "config.json"}]})
    assert describe("owner/name") == HubModel("owner/name", COMMIT, ("config.json",))
    ((path, headers),) = local_hub.requests
    assert path == "/api/models/owner/name"
    assert "Authorization" not in headers


def test_the_token_is_shown(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    local_hub.answer = saying({"sha": COMMIT})
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    assert describe("owner/name").files == ()
    assert local_hub.requests[0][1]["Authorization"] == "Bearer hf_secret"


def test_names_are_quoted(local_hub: LocalHub) -> None:
    local_hub.answer = saying({}, 404)
    with pytest.raises(HubError, match="does not give it out"):
        describe("my model?")
    assert local_hub.requests[0][0] == "/api/models/my%20model%3F"


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_a_refusal_is_said(local_hub: LocalHub, status: int) -> None:
    local_hub.answer = saying({}, status)
    with pytest.raises(HubError, match=str(status)):
        describe("owner/name")


@pytest.mark.parametrize(
    "content",
    [b"<html>log in to the Wi-Fi</html>", b"\xff", [], {}, {"sha": COMMIT, "siblings": ["a"]}],
)
def test_an_answer_of_somebody_else_is_no_hub(local_hub: LocalHub, content: Any) -> None:
    local_hub.answer = saying(content)
    with pytest.raises(HubError):
        describe("owner/name")


def test_a_broken_answer_is_no_hub(local_hub: LocalHub) -> None:
    local_hub.answer = lambda request: None
    with pytest.raises(HubError, match="cannot be reached"):
        describe("owner/name")
    local_hub.answer = lambda request: request.wfile.write(b"SSH-2.0-OpenSSH\r\n")  # type: ignore[assignment]
    with pytest.raises(HubError, match="cannot be reached"):
        describe("owner/name")


def test_offline_mode_asks_nobody(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    with pytest.raises(HubError, match="offline"):
        describe("owner/name")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="offline"):
        describe("owner/name")
    assert not local_hub.requests


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        (["model.safetensors", "pytorch_model.bin"], []),
        (["model.safetensors.index.json", "model-1.safetensors", "pytorch_model.bin"], []),
        (["pytorch_model.bin"], ["pytorch_model*.bin"]),
        (["adapter_model.safetensors", "pytorch_model.bin"], ["pytorch_model*.bin"]),
    ],
)
def test_one_format_of_weights_is_downloaded(
    local_hub: LocalHub,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    files: list[str],
    weights: list[str],
) -> None:
    local_hub.answer = saying({"sha": COMMIT, "siblings": [{"rfilename": f} for f in files]})
    asked: dict[str, Any] = {}

    def snapshot_download(name: str, **rest: Any) -> str:
        asked.update(rest, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert download("owner/name") == tmp_path
    assert asked["name"] == "owner/name"
    assert [p for p in asked["allow_patterns"] if p.endswith(".bin")] == weights
    assert "revision" not in asked, "for a commit, the cache keeps no reference to find it again by"


def test_a_broken_download_is_a_hub_error(
    local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_hub.answer = saying({"sha": COMMIT})
    errors = huggingface_hub.errors
    for error in (OSError("disk full"), errors.HTTPError("connection lost")):

        def snapshot_download(*_: Any, error: Exception = error, **__: Any) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        with pytest.raises(HubError, match=f"its download failed .{error}"):
            download("owner/name")


@pytest.mark.parametrize("name", ["owner/name", "a b", "one/two/three", "../up", "x" * 200])
def test_what_the_cache_has_not_is_none(name: str) -> None:
    assert cached_snapshot(name) is None


def test_a_download_is_found_again(tmp_path: Path) -> None:
    cache = tmp_path / "hub/models--owner--name"
    folder = cache / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text(COMMIT)
    (folder / "config.json").write_text("{}")
    assert cached_snapshot("owner/name") is None, "without weights it is no model"
    (folder / "model.safetensors").write_text("")
    assert cached_snapshot("owner/name") == folder


def test_all_shards_are_needed(tmp_path: Path) -> None:
    assert missing_weights(tmp_path) == ["model.safetensors"]
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (tmp_path / "model-1.safetensors").write_text("")
    assert missing_weights(tmp_path) == ["model-2.safetensors"]
    assert not has_weights(tmp_path)
    (tmp_path / "model-2.safetensors").write_text("")
    assert has_weights(tmp_path)


def test_an_index_without_its_files_does_not_count(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert missing_weights(tmp_path) == ["model.safetensors"]
    (tmp_path / "pytorch_model.bin").write_text("")
    assert has_weights(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 1}'])
def test_a_broken_index_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    assert missing_weights(tmp_path) == ["model.safetensors"]
