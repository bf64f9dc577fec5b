"""Secrets become ``***`` before anything is written to a log, a dumped config or ``run.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "***"

_SECRET_KEY = re.compile(
    r"(?:^|_)(?:hub|hf|auth|access|api|bearer|wandb|github|refresh|session|push_to_hub)_token$|^token$"
    r"|secret|passw(?:or)?d|api_?key|access_?key|private_?key|credential",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"\bhf_[A-Za-z0-9]{8,}|\bsk-[A-Za-z0-9_-]{8,}|\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{16,}"
    r"|\bAKIA[0-9A-Z]{12,}|\bxox[abpr]-[A-Za-z0-9-]{10,}|(?<=\bBearer )[\w.~+/-]{8,}=*|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)
# Only names that may be secret: others would swallow the next name as their value ("logger: password=…").
_ASSIGNED = re.compile(
    r"([\w.-]*(?:token|secret|passw|api_?key|access_?key|private_?key|credential)\w*)"
    r"(['\"]?\s*[=:]\s*)(['\"]?)([^\s'\",;]+)",
    re.IGNORECASE,
)
_FLAG = re.compile(r"(--[\w.-]+)(\s+)(?!--)(\S+)")


def is_secret_key(key: Any, value: Any = "") -> bool:
    """True if a value under this name is a secret; ``pad_token='<pad>'`` and its like are not."""
    if not isinstance(key, str):
        return False
    name = key.lstrip("-").replace("-", "_").rpartition(".")[2]
    if _SECRET_KEY.search(name):
        return True
    long_text = isinstance(value, str) and len(value) >= 16 and not re.search(r"[<>\[\]\s]", value)
    return name.lower().endswith("token") and long_text


def redact(value: Any, key: Any = None) -> Any:
    """A copy of nested plain values without secrets, found by the name of their key or by their look."""
    if isinstance(value, str):
        return HIDDEN if value and is_secret_key(key, value) else _VALUE.sub(HIDDEN, value)
    if isinstance(value, Mapping):
        return {name: redact(one, name) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [redact(one, key) for one in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return value


def redact_text(text: str) -> str:
    """A line of log without secrets: token-looking words, ``password=…`` and ``--hub_token …``."""

    def assigned(match: re.Match[str]) -> str:
        name, sign, quote, value = match.groups()
        return f"{name}{sign}{quote}{HIDDEN}" if is_secret_key(name, value) else match.group(0)

    def flag(match: re.Match[str]) -> str:
        name, space, value = match.groups()
        return f"{name}{space}{HIDDEN}" if is_secret_key(name, value) else match.group(0)

    return _FLAG.sub(flag, _ASSIGNED.sub(assigned, _VALUE.sub(HIDDEN, text)))


def redact_command(argv: Sequence[str]) -> list[str]:
    """A command line without secrets: ``--hub_token X``, ``--hub_token=X`` and ``a.password=X`` lose their X."""
    hidden, after_secret_flag = [], False
    for word in argv:
        if after_secret_flag and not word.startswith("--"):
            hidden.append(HIDDEN)
            after_secret_flag = False
            continue
        name, sign, value = word.partition("=")
        after_secret_flag = not sign and word.startswith("--") and is_secret_key(word)
        hidden.append(f"{name}={HIDDEN}" if sign and is_secret_key(name, value) else _VALUE.sub(HIDDEN, word))
    return hidden
