"""Secrets are found by their shape, and hardly anything else is."""

import random
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbmlops.rules import secrets_in

UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
LETTERS = string.ascii_letters + string.digits


def drawn(length, alphabet=LETTERS):
    return "".join(random.Random(length).choices(alphabet, k=length))


def codes(text, path="x.py", values=None):
    return [leak.code for leak in secrets_in(text.encode(), path, values)]


# Made of parts, so that no scanner takes this file for a leak.
TOKENS = [
    "AKIA" + drawn(16, UPPER),
    "aws_secret_access_key = " + drawn(40),
    "ghp_" + drawn(36),
    "github_pat_" + drawn(22) + "_" + drawn(59),
    "glpat-" + drawn(20),
    "xoxb-" + drawn(12, string.digits) + "-" + drawn(24),
    "https://hooks.slack.com/services/T" + drawn(8) + "/B" + drawn(8) + "/" + drawn(24),
    "hf_" + drawn(34, string.ascii_letters),
    "sk-proj-" + drawn(48),
    "sk-" + drawn(48),
    "sk-ant-api03-" + drawn(95),
    "AIza" + drawn(35),
    "sk_live_" + drawn(24),
    "npm_" + drawn(36),
    "pypi-AgEIcHlwaS5vcmc" + drawn(80),
    "dapi" + drawn(32, "0123456789abcdef"),
    "AccountKey=" + drawn(86) + "==",
    "SG." + drawn(22) + "." + drawn(43),
    "-----BEGIN RSA PRIVATE " + "KEY-----\n" + drawn(64) + "\n",
    '"-----BEGIN PRIVATE ' + "KEY-----\\n" + drawn(64) + '"',
]


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token[:14])
def test_a_token_of_known_shape_is_found_at_its_line_and_not_told(token):
    found = secrets_in(f"a = 1\nb = '{token}'\n".encode(), "x.py")
    assert [(leak.code, leak.line) for leak in found] == [("secret", 2)]
    assert token not in repr(found)


@pytest.mark.parametrize(
    "text",
    [
        f"password = '{drawn(14)}7'",
        f'{{"api_key": "{drawn(32)}"}}',
        f"connect(user='a', passwd=\"{drawn(12)}7\")",
        f"DB_PASSWORD: '{drawn(12)}7'",
        f"postgresql://ada:{drawn(12)}7@db.corp.eu/x",
    ],
)
def test_a_likely_password_is_found(text):
    assert codes(text) == ["password"]


def test_files_of_settings_need_no_quotes():
    text = f"NAME=x\nDB_PASSWORD={drawn(14)}7\n"
    assert codes(text, ".env") == codes(text, "conf/prod.yaml") == ["password"]
    assert codes(text, "x.py") == []


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "x" * 36,
        '"-----BEGIN PRIVATE KEY-----" in text',
        "password = 'changeme123'",
        "password = 'your-password-1'",
        "password = os.environ['DB_PASSWORD1']",
        "password = '${DB_PASSWORD}1'",
        "password = getpass('Password 1: ')",
        "token = 'bert-base-uncased-v2-large'",
        "tokenizer = 'gpt2-large-1234567890'",
        "pad_token = '<|endoftext|>'",
        "api_key = 'YOUR_API_KEY_123456789'",
        "request_token = '1a2b3c4d-5e6f-7a8b-9c0d-1e2f3a4b5c6d'",
        "https://user:password@host/",
        "postgresql://postgres:postgres1@localhost/db",
        "see sk-learn-contrib-imbalanced",
        "http://localhost:8888/?token=" + drawn(48),
        "secret == 'a1b2c3d4e5f6g7h8i9j0k1'",
        "def token(self): return 'a1'",
        "sha256 = '" + drawn(64, "0123456789abcdef") + "'",
    ],
)
def test_what_is_no_secret_is_left_alone(text):
    assert codes(text) == []
    assert codes(text, "x.yaml") == []


def test_a_line_may_say_that_it_stands():
    token = TOKENS[2]
    assert codes(f"a = '{token}'  # pragma: allowlist secret") == []
    assert codes(f"a = '{token}'  # gitleaks:allow\nb = '{token}'") == ["secret"]


def test_the_values_of_named_secrets_are_found_and_short_ones_are_not():
    values = {"DB": "swordfish", "PIN": "1234"}
    found = secrets_in(b"a\nurl?key=swordfish\n1234\n", "x.txt", values)
    assert [(leak.line, leak.what) for leak in found] == [(2, "the value of the secret `DB`")]
    assert "swordfish" not in repr(found)


def test_a_binary_file_is_read_in_part():
    token = TOKENS[2].encode()
    assert len(secrets_in(b"\0" * 5000 + token, "x.bin")) == 1
    assert secrets_in(b"\0" * 2_000_000 + token, "x.bin") == []


@given(st.binary(max_size=2000), st.sampled_from(["x.py", ".env", "x.ipynb"]))
def test_no_bytes_make_it_fail(data, path):
    for leak in secrets_in(data, path, {"A": "secret-value"}):
        assert leak.line >= 1


@pytest.mark.parametrize(
    "unit",
    [b"a://", b"a_token", b"token = ", b"-----BEGIN A ", b"AKIA", b"sk-", b"xoxb-1", b"password='"],
)
def test_hostile_text_takes_no_longer_than_other_text(unit):
    def cost(size):
        data = unit * (size // len(unit)) + b"@"
        started = time.process_time()
        secrets_in(data, "x.yaml")
        return time.process_time() - started

    # Ten times the text takes about ten times as long; backtracking would take a hundred times.
    assert cost(2_000_000) < 40 * max(cost(200_000), 0.002)
