"""Secrets taken out of every text that is written down or shown: parameters, tags, notes, messages, reports."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

MASK = "***"
_SHORTEST = 8  # characters of a secret in the environment; less would be found in ordinary words
_NAMED = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/\s'\"<>?#]+(?=@)")  # up to the last @: a password may hold one
_KEY_NAMES = (
    r"(?:x-)?(?:amz-)?(?:api[_-]?key|access[_-]?key|access[_-]?token|auth[_-]?token|token|secret|client[_-]?secret"
    r"|password|passwd|pwd|signature|sig|credential|security-token)"
)
# Of a URL or a setting (`token=...`), and of JSON (`"token": "..."`); in a sentence "token: " is a word.
_OPTION = re.compile(rf"((?:^|[?&;\s\"'{{,]){_KEY_NAMES}=)(?!\*)[^\s&;\"',}}<>]{{4,}}", re.IGNORECASE)
_MEMBER = re.compile(rf"([\"']{_KEY_NAMES}[\"']\s*:\s*[\"'])(?!\*)[^\"']{{4,}}", re.IGNORECASE)
# Behind a name that ends like one of a secret (`HF_TOKEN=`, `x-api-key: `, `--password `), in any quotes, also of a URL
# in a URL: what has digits and letters, as no word has. Texts of megabytes come here: what is looked ahead is bounded.
_LOOSE = re.compile(
    r"((?:api[_-]?key|access[_-]?key|account[_-]?key|secret[_-]?key|secret|token|password|passwd|pwd|credentials?|auth"
    r"|authorization|cookie:\s*\w+|[?&]key)[\"'\\]*(?:\s?[:=]\s?|%3d|(?<=\w)\s)[\"'\\]*(?:(?:token|bearer)\s)?)"
    r"(?=[^\s\"'&,;\\]{0,99}\d)(?=[^\s\"'&,;\\]{0,99}[a-z])[^\s\"'&,;\\<>{}()\[\]*]{8,}",
    re.IGNORECASE,
)
# Written as no word is: else "basic understanding" would be one.
_HEADER = re.compile(r"\b((?i:bearer|basic))\s+(?=\S*(?:\d|[a-z][A-Z]|=))[A-Za-z0-9._~+/=-]{8,}")
# As the services write their keys: OpenAI and Anthropic, Hugging Face, GitHub, GitLab, AWS, Google, Slack, Databricks,
# npm, PyPI, Stripe, any JWT; and whole private keys.
_KEYS = re.compile(
    r"\b(?:sk-[\w-]{16,}|hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{30,}|ya29\.[\w-]{20,}|(?:xox[abprs]|xapp)-[\w-]{10,}|dapi[0-9a-f]{32}"
    r"|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{40,}|[rsp]k_(?:live|test)_\w{16,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+)"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END|\Z)",
    re.DOTALL,
)


def redacted(text: str) -> str:
    """A text without passwords and keys, and with ``~`` for the home folder, which has a person's name.

    What is masked: logins and keys in URLs, authorization headers, keys as known services write them, what has digits
    and letters behind a name of a secret, and the values of environment variables whose names end in KEY, TOKEN,
    SECRET, PASSWORD or CREDENTIALS.

    >>> redacted("http://me:letmein@host/v1?api_key=abcd1234&n=2")
    'http://***@host/v1?api_key=***&n=2'
    >>> redacted("Authorization: Bearer abcdefgh12345678")
    'Authorization: Bearer ***'
    """
    for known in _of_the_environment():
        text = text.replace(known, MASK)
    text = _LOGIN.sub(MASK, text)
    text = _MEMBER.sub(rf"\1{MASK}", _OPTION.sub(rf"\1{MASK}", text))
    text = _HEADER.sub(rf"\1 {MASK}", text)
    text = _LOOSE.sub(rf"\1{MASK}", _KEYS.sub(MASK, text))
    home = _home()
    return home.sub("~", text) if home else text


def _of_the_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _NAMED.search(name) and not Path(value).is_absolute():
            yield value


def _home() -> re.Pattern[str] | None:
    return _home_pattern(os.environ.get("HOME", ""))


@lru_cache(maxsize=4)
def _home_pattern(folder: str) -> re.Pattern[str] | None:
    # Not a part of another name: /home/ann is no part of /home/anna.
    return re.compile(re.escape(folder.rstrip("/")) + r"(?![\w.-])") if len(folder) > 2 else None
