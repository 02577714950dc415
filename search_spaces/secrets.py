"""Passwords and tokens taken out of text before anything keeps it or shows it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

_LEAST_CHARACTERS = 6
"""A shorter value is too common a word to be looked for in every text."""

_SECRET_WORDS = frozenset(
    [
        "TOKEN",
        "TOKENS",
        "KEY",
        "KEYS",
        "APIKEY",
        "SECRET",
        "SECRETS",
        "PASSWORD",
        "PASSWORDS",
        "PASSWD",
        "PASSPHRASE",
        "PASS",
        "CREDENTIAL",
        "CREDENTIALS",
        "AUTH",
        "AUTHORIZATION",
        "PAT",
    ]
)
_SECRET_PARTS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "APIKEY")
_HARMLESS_ENDS = frozenset(
    [
        "MODE",
        "METHOD",
        "TYPE",
        "PROVIDER",
        "ENABLED",
        "DISABLED",
        "TIMEOUT",
        "TTL",
        "SOCK",
        "SOCKET",
        "PATH",
        "FILE",
        "DIR",
        "HOST",
        "PORT",
        "URL",
        "PARALLELISM",
        "USER",
        "USERNAME",
    ]
)
"""Last words of names that say something about a secret and hold none (`RAY_AUTH_MODE`)."""

_URL_CREDENTIALS = re.compile(
    r"""://(?:[^\s/'"<>]{0,2048}@|[^\s:/'"<>]{0,2048}:(?!\d{1,5}[/?\#])[^\s'"<>]{1,2048}@)""",
)
"""To the last `@` of the host's part; a password may hold an unescaped `@` or, after a user, `/`.

Signed tokens that serve as passwords have a thousand characters and more. There is a bound because
in a text of `://` and nothing else each of them has the rest searched for an `@`.
"""

_NAMED = re.compile(
    r"""(?ix)
    ( (?: [?&;] [\w.-]* (?: token | key | secret | sig | signature ) =
        | \b (?: \w*password | passwd | pwd | passphrase | \w*secret(?:[_-]?(?:access[_-]?)?key)?
             | (?:access|auth|api|hf|bearer|refresh|session|private)[_-]?(?:token|key) )
          ["']? \s* [=:] \s* ["']?
        | (?<![\w-]) token = ["']?
        | \b authorization ["']? \s* [=:] \s* ["']? (?: (?:bearer|basic|token) \s+ )?+
        | \b bearer \s+ (?=\S*\d)
      ) )
    (?! \*\*\* ) [^\s&;'"<>,)}\]\\]+
    """
)
_TOKENS = re.compile(
    r"""(?x)
    -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | (?<![A-Za-z0-9])
      (?: (?:hf|api_org)_[A-Za-z0-9]{16,}              # Hugging Face
        | gh[pousr]_[A-Za-z0-9]{16,} | github_pat_\w{16,} | glpat-[\w-]{16,}
        | sk-[\w-]{16,} | xox[abeprs]-[\w-]{10,} | npm_[A-Za-z0-9]{16,} | pypi-[\w-]{16,}
        | (?:AKIA|ASIA)[0-9A-Z]{16}                    # AWS
        | AIza[\w-]{30,} | ya29\.[\w-]{16,}            # Google
        | dapi[0-9a-f]{32}                             # Databricks
        | eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*              # JSON web tokens
      )
    """,
    re.DOTALL,
)


def hide_secrets(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text with `***` for everything in it that lets somebody in.

    Hidden are user names and passwords in addresses, secret parameters of queries, tokens of a
    known form, and the values of environment variables whose names say that they are secret.

    Args:
        text: whatever is about to be written, logged or shown.
        environ: where secret values are looked up.
    """
    for secret in sorted(set(_secret_values(environ)), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _URL_CREDENTIALS.sub("://***@", text)
    text = _TOKENS.sub("***", text)
    return _NAMED.sub(r"\1***", text)


def is_secret_name(name: str) -> bool:
    """Whether a variable's name says that its value is secret.

    Args:
        name: e.g. `MLFLOW_TRACKING_PASSWORD`.
    """
    words = re.split(r"[^A-Z0-9]+", name.upper())
    if words[-1] in _HARMLESS_ENDS:
        return False
    if not _SECRET_WORDS.isdisjoint(words):
        return True
    return any(word.endswith(_SECRET_PARTS) for word in words)


def _secret_values(environ: Mapping[str, str]) -> Iterator[str]:
    """Secret values as they are, and as addresses, shells, JSON and Python write them."""
    for name, value in environ.items():
        value = value.strip()
        if len(value) < _LEAST_CHARACTERS or not is_secret_name(name) or os.path.exists(value):
            continue  # The path of a file with credentials is no secret.
        yield value
        yield quote(value, safe="")
        yield value.replace("'", """'"'"'""")
        yield json.dumps(value)[1:-1]
        yield repr(value)[1:-1]
