"""What looks like a secret is taken out and named; what only resembles one stays; no text makes it slow."""

from __future__ import annotations

import base64
import io
import json
import random
import string
import time

import pytest

from app.core.redaction import redactor
from app.main import HELD_CHARS_MAX, Redacting

redact = redactor(("hunter2-hunter2",))
random.seed(93)
WORD = string.ascii_letters + string.digits


def chars(count: int, alphabet: str = WORD) -> str:
    return "7" + "".join(random.choices(alphabet, k=count - 1))


def key_block(kind: str, *headers: str) -> str:
    body = [chars(64, WORD + "+/") for _ in range(12)]
    return "\n".join([f"-----BEGIN {kind}-----", *headers, *body, chars(22) + "==", f"-----END {kind}-----"])


JWT = f"eyJ{chars(33)}.eyJ{chars(90, WORD + '-_')}.{chars(43, WORD + '-_')}"
SECRETS = [
    ("API key", "sk-" + chars(48)),
    ("API key", "sk-proj-" + chars(150, WORD + "-_")),
    ("API key", "sk-ant-api03-" + chars(95, WORD + "-_")),
    *(("GitHub token", f"gh{kind}_" + chars(36)) for kind in "posur"),
    ("GitHub token", f"github_pat_{chars(22)}_{chars(59)}"),
    ("GitLab token", "glpat-" + chars(20, WORD + "-_")),
    ("AWS key", "AKIA" + chars(16, string.ascii_uppercase + "234567")),
    ("AWS key", "ASIA" + chars(16, string.ascii_uppercase + "234567")),
    *(("Slack token", f"xox{kind}-{chars(12, string.digits)}-{chars(24)}") for kind in "abprs"),
    ("Google key", "AIza" + chars(35, WORD + "-_")),
    ("Stripe key", "sk_live_" + chars(24)),
    ("Stripe key", "rk_live_" + chars(99)),
    ("npm token", "npm_" + chars(36)),
    ("JSON web token", JWT),
    ("private key", key_block("PRIVATE KEY")),
    ("private key", key_block("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,0A1B2C3D", "")),
    ("private key", key_block("OPENSSH PRIVATE KEY")),
    ("credential", f"Authorization: Bearer {chars(20, WORD + '._~+/')}"),
    ("credential", f"authorization=Basic {base64.b64encode(b'ann:hunter22').decode()}"),
    ("credential", f"AUTHORIZATION: token {chars(40)}"),
    ("user and password", "ann:t0p-s3cret"),
    ("user and password", ":p@ss:w0rd"),
]
IDS = [f"{kind}-{number}" for number, (kind, _) in enumerate(SECRETS)]


def told(kind: str, secret: str) -> str:
    return f"postgres://{secret}@db.example.org/x" if kind == "user and password" else secret


@pytest.mark.parametrize(("kind", "secret"), SECRETS, ids=IDS)
def test_every_kind_is_taken_out_and_named(kind: str, secret: str) -> None:
    """FAULTS 93, security-secrets: in prose, in code, in JSON, twice encoded; nothing of it is left."""
    found = told(kind, f"\0{secret}\0")
    expected = found.replace(f"\0{secret}\0", f"[redacted: {kind}]")
    plain = told(kind, secret)
    assert redact(f"It is {plain}.") in (f"It is {expected}.", f"It is {expected}")
    assert redact(f"a='{plain}' b") == f"a='{expected}' b"
    assert redact(f"one\n{plain}\n{plain}\n") == f"one\n{expected}\n{expected}\n"
    for dumped in (json.dumps({"said": f"one\n{plain}\n"}), json.dumps(json.dumps([f"\t{plain}"]))):
        assert secret[-12:-3] not in redact(dumped) and f"[redacted: {kind}]" in redact(dumped)
    assert redact(redact(plain)) == expected, "what was taken out looks like no secret itself"


def test_headers_as_programs_print_them() -> None:
    """FAULTS 93."""
    for text in (
        f"curl -H 'Authorization: Bearer {chars(30)}' https://example.org",
        f"{{'Authorization': 'Bearer {chars(30)}'}}",
        json.dumps({"headers": [["Proxy-Authorization", f"Bearer {chars(30)}"]]}),
        json.dumps(json.dumps({"authorization": f"bearer {chars(30)}"})),
        f"(b'authorization', b'Bearer {chars(30)}')",
    ):
        assert redact(text).count("[redacted: credential]") == 1 and "7" not in redact(text), redact(text)


def test_a_key_that_was_cut_is_still_one() -> None:
    """FAULTS 93: the end of a block may be missing."""
    whole = key_block("EC PRIVATE KEY")
    for length in range(len("-----BEGIN EC PRIVATE KEY-----\n") + 16, len(whole)):
        left = redact(whole[:length]).removeprefix("[redacted: private key]")
        assert not left or set(left) <= set("-END CPRIVATKY"), left


@pytest.mark.parametrize(
    "text",
    [
        "sk-circle-fade-dot-animation and sk-learn-compatible-estimators, task-2024-11-21-quarterly-report",
        "disk-0123456789abcdef0123456789abcdef, risk-assessment-2025-final-version-2",
        "gh_pages_branch, ghp_short, the high_scores_2024_of_every_player_in_the_league_table",
        "AKIA is a prefix; AKIAIOSFODNN7 is too short; MAKIAXIOSFODNN7EXAMPLEX",
        "npm_config_registry npm_package_dependencies_of_this_package npm_lifecycle_event",
        "xoxb-tokens-are-for-bots, glpat-short, AIzawa",
        "https://example.org:8080/a@b, http://[::1]:8000/, mailto:ann@example.org, git@github.com:ann/pets.git",
        "https://example.org/?q=a:bcd@e, https://ann@example.org/x, 12:30:45@noon",
        "It begins with -----BEGIN PRIVATE KEY----- and ends with -----END PRIVATE KEY-----.",
        "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUZjQ\n-----END CERTIFICATE-----",
        "Authorization: required. The authorization bearer is known. Authorization basic rules",
        "eyJhbGciOiJIUzI1NiJ9 is a header, eyJ.eyJ.x is nothing, version.eyJ",
        "commit 3a36283f0c0ffee0123456789abcdef012345678, sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "d9428888-122b-11e1-b85c-61cd3cbb3210, run_1/call_7, Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4",
        "arn:aws:iam::123456789012:user/ann, s3://bucket/a:b/c@d",
    ],
)
def test_what_only_resembles_one_stays(text: str) -> None:
    """FAULTS 93: words, ids, digests, addresses, public keys."""
    assert redact(text) == text


def test_what_is_encoded_stays_whole() -> None:
    """FAULTS 93: two million characters of base64, in both alphabets, hold every short prefix by chance."""
    raw = random.randbytes(1_500_000)
    for encoded in (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode(), raw.hex()):
        assert redact(encoded) == encoded


@pytest.mark.parametrize(
    "piece",
    [
        *("sk-", "sk-a", "-sk-", "\nsk-aaaaaaaaaaaaaaaaaaaa", "ghp_", "github_pat_", "glpat-", "AKIA", "xoxb-", "AIza"),
        *("sk_live_", "npm_", "eyJ", "eyJaaaaaaaa.", "eyJaaaaaaaa.eyJaaaaaaaa.", "-eyJ", "\\neyJaaaaaaaaa", "%41eyJ"),
        *("://", "://a:", "://a:bbbb", "://" + "a" * 190, "://a:" + "b" * 490, ":", "@"),
        *("-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "PRIVATE KEY", "-----BEGIN RSA PRIVATE KEY-----\n" + "A" * 64),
        *("-----BEGIN PRIVATE KEY-----\nA: b\n", "Authorization: Bearer ", "authorization", "authorization:::: "),
        *("a", "7", "-", "\\", "\\n", "=", "A" * 16 + "\n", "A: b\n"),
    ],
)
def test_no_text_makes_it_slow(piece: str) -> None:
    """FAULTS 93: our own patterns are no ReDoS. Four times the text takes about four times as long, never sixteen.

    Each piece for itself, after the beginning of every secret, and before a text that fits none.
    """
    openings = ("", "-----BEGIN PRIVATE KEY-----\n", "://a:", "eyJ", "sk-", "Authorization: Bearer ", "xoxb-")

    def seconds(size: int) -> float:
        texts = [opening + piece * (size // len(piece)) + "!" for opening in openings]
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            for text in texts:
                redact(text)
            best = min(best, time.process_time() - began)
        return best

    small, large = seconds(50_000), seconds(200_000)
    assert large < 10 * small + 0.05, (small, large)


# --- what is printed


def test_a_secret_that_is_printed_in_pieces() -> None:
    """FAULTS 93: within a line, and a key line by line; what is flushed is out."""
    out = io.StringIO()
    stream = Redacting(out, redact)  # the part of a text stream that print uses
    key = key_block("RSA PRIVATE KEY")
    for piece in ("it is hunter2", "-hunter2 and ", SECRETS[0][1][:9], SECRETS[0][1][9:], "\n"):
        stream.write(piece)
    assert out.getvalue() == "it is [redacted] and [redacted: API key]\n"
    for line in key.splitlines():
        stream.write(line)
        stream.write("\n")
    stream.writelines(["and hun", "ter2-hunter2\nopen"])
    assert out.getvalue().endswith("key]\n[redacted: private key]\nand [redacted]\n")
    stream.flush()
    assert out.getvalue().endswith("\nopen")


def test_what_waits_to_be_printed_is_bounded() -> None:
    """FAULTS 93: a line without an end, a key without one."""
    for opening in ("", "-----BEGIN PRIVATE KEY-----\n"):
        out = io.StringIO()
        stream = Redacting(out, redact)
        stream.write(opening)
        for _ in range(HELD_CHARS_MAX + 1):
            stream.write("?")
        assert len(out.getvalue()) > HELD_CHARS_MAX
