"""Takes secrets out of a text: the values that this process knows, and whatever looks like a token of a known maker.

What is taken out is replaced by what it was, never by a part of it. Every pattern is linear in the text whatever is in
it: it begins at a fixed word, possessive quantifiers give nothing back, and a run of characters is entered once. A
pattern wants more than its prefix (a length, a digit, both edges), so that words, ids and base64 stay what they are.
Whoever cuts a text does so afterwards: half a secret is not recognised (FAULTS.md 93).
"""

from __future__ import annotations

import re
from collections.abc import Callable

_HEX = "[0-9a-fA-F]"


def _word(begins: str) -> str:
    """The beginning of a token: not inside a word, but after an escape, as in JSON or in a URL.

    It looks back once it has been found, since looking for a fixed text is what costs next to nothing.
    """
    escapes = "|".join(rf"(?<={escape}{begins})" for escape in (r"\\[bfnrt]", rf"\\u{_HEX * 4}", f"%{_HEX * 2}"))
    return rf"{begins}(?:(?<![A-Za-z0-9_-]{begins})|{escapes})"


_RIGHT = r"(?![A-Za-z0-9_-])"
_BREAK = r"(?:\s|\\++[nr])"
"""The end of a line, also one that is written as an escape."""

_KEY_BLOCK = (
    r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
    rf"{_BREAK}*+(?:[A-Za-z-]{{1,20}}: [^\n\\]{{1,80}}{_BREAK}++)*+"
    rf"(?:[A-Za-z0-9+/]{{16,}}+=*+{_BREAK}*+)++(?:[A-Za-z0-9+/=]{{1,76}}+{_BREAK}*+(?=-----|\Z))?"
    r"(?:-----END [A-Z0-9 ]{1,60}-----)?"
)
_HEADER = r"(?i:uthorization)[\"'\\\s:=,b(\[]{1,12}(?i:bearer|basic|token)\s{1,4}[\w.~+/=-]{12,}+"

_SHAPES = [
    ("private key", "PRIVATE KEY", _KEY_BLOCK),
    ("credential", "uthorization", rf"[Aa]{_HEADER}"),
    ("credential", "UTHORIZATION", rf"A{_HEADER}"),
    ("user and password", "://", r"(?<=://)[^\s/:@?#\"'<>\\]{0,200}+:[^\s/?#\"'<>\\]{3,500}(?=@)"),
]
_TOKENS = [
    ("JSON web token", "eyJ", r"[\w-]{8,}+\.eyJ[\w-]{8,}+\.[\w-]{16,}+"),
    ("API key", "sk-", r"(?=[A-Za-z_-]*+[0-9])[\w-]{20,}+"),
    ("GitHub token", "github_pat_", r"\w{36,}+"),
    ("GitHub token", "gh", r"[opsur]_\w{36,}+"),
    ("GitLab token", "glpat-", r"[\w.-]{20,}+"),
    ("AWS key", "AKIA", rf"[A-Z0-9]{{16}}{_RIGHT}"),
    ("AWS key", "ASIA", rf"[A-Z0-9]{{16}}{_RIGHT}"),
    ("Slack token", "xox", r"[abeoprs]-(?=[A-Za-z-]*+[0-9])[A-Za-z0-9-]{10,}+"),
    ("Google key", "AIza", rf"[\w-]{{35}}{_RIGHT}"),
    ("Stripe key", "sk_live_", r"[A-Za-z0-9]{16,}+"),
    ("Stripe key", "rk_live_", r"[A-Za-z0-9]{16,}+"),
    ("npm token", "npm_", rf"[A-Za-z0-9]{{36}}{_RIGHT}"),
]
"""What it is, a text that is in every one (a token begins with it), and how it goes on.

An API key is one of OpenAI's shape, which many others took over. Of a URL only user and password go, of a header all.
"""

_PATTERNS = [
    (f"[redacted: {kind}]", begins, re.compile(pattern, re.ASCII))
    for kind, begins, pattern in [*_SHAPES, *((kind, begins, _word(begins) + rest) for kind, begins, rest in _TOKENS)]
]


def redactor(secrets: tuple[str, ...]) -> Callable[[str], str]:
    """A function that takes these values, in this order, and then every known shape out of a text."""

    def redact(text: str) -> str:
        for secret in secrets:
            if secret in text:
                text = text.replace(secret, "[redacted]")
        for instead, begins, pattern in _PATTERNS:
            if begins in text:
                text = pattern.sub(instead, text)
        return text

    return redact


def is_open_key(text: str) -> bool:
    """Whether a private key begins in this text and has not ended yet."""
    begins = text.rfind("-----BEGIN ")
    return begins >= 0 and "PRIVATE KEY" in text[begins : begins + 120] and "-----END " not in text[begins:]
