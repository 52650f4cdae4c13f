"""Secrets that are planted wherever users have them, and texts that only look like some."""

import time

import pytest

from valuedrift_mlflow.inputs.errors import InputError, Unanswered
from valuedrift_mlflow.inputs.redaction import redacted

SECRETS = [
    ("http://user:hunter2hunter@host:1/v1", "hunter2hunter"),
    ("https://ghtoken123@host/x", "ghtoken123"),
    ("openai:/m?base_url=http://u:p%40ssw0rd@h/v1&logprobs=off", "p%40ssw0rd"),
    ("s3://b/k?X-Amz-Signature=0a1b2c3d4e&X-Amz-Security-Token=FwoGZXIvYXdz", "0a1b2c3d4e"),
    ("s3://b/k?X-Amz-Signature=0a1b2c3d4e&X-Amz-Security-Token=FwoGZXIvYXdz", "FwoGZXIvYXdz"),
    ("Authorization: Bearer abc.def-123456", "abc.def-123456"),
    ('{"error": "bad header", "Authorization": "Basic dXNlcjpwYXNzMQ=="}', "dXNlcjpwYXNzMQ=="),
    ('{"api_key": "planted-in-json"}', "planted-in-json"),
    ("sk-proj-abcdefghijklmnop1234", "sk-proj-abcdefghijklmnop1234"),
    ("hf_abcdefghijklmnopqrstuvwxyz", "hf_abcdefghijklmnopqrstuvwxyz"),
    ("it said: my-planted-key-42 is no key", "my-planted-key-42"),
    ("/home/ann.example/data/pairs.jsonl", "ann.example"),
]


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_API_KEY", "my-planted-key-42")
    monkeypatch.setenv("HOME", "/home/ann.example")


HIDDEN = "s3cr3tPASSvalue99"
FORMS = [
    "api_key: {}",
    "{{'x-api-key': '{}'}}",
    "Authorization: Token {}",
    "http://ann:p@{}@host/v1",
    "AccountKey={}==;",
    "https%3A%2F%2Fhost%3Fpassword%3D{}",
    "PASSWORD='{}'",
    "aws_secret_access_key = {}",
    "refresh_token={}",
    "Cookie: session={}",
    "https://host/p#access_token={}",
    "curl --api-key {}",
    "export HF_TOKEN={}",
    'said \\"token\\": \\"{}\\"',
    "https://host/v1?key={}",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_masked_however_it_is_written(form: str) -> None:
    assert HIDDEN not in redacted(form.format(HIDDEN))


@pytest.mark.parametrize(
    "piece", ["?key=", "token ", '"token":"', "http://a@", "-----BEGIN PRIVATE KEY-----", "bearer "]
)
def test_a_long_text_takes_no_minutes(piece: str) -> None:
    begun = time.process_time()
    redacted(piece * 20_000)
    assert time.process_time() - begun < 20


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_a_secret_is_masked_and_the_rest_stays(text: str, secret: str) -> None:
    shown = redacted(text)
    assert secret not in shown
    assert redacted(shown) == shown
    for error in (InputError(text), Unanswered(text)):
        assert secret not in str(error)
    assert secret not in "".join(InputError(text).problems)


@pytest.mark.parametrize(
    "text",
    [
        "the last token: yes, max_new_tokens=256, stop=token",
        "a basic understanding of the secret ballot; the bearer of bad news",
        "/home/ann.examples/x and someone@example.org",
        "embedded:sft?support=0.7&seed=0",
        "models:/assistant@champion",
        "eos_token=<|endoftext|>, pad_token: [PAD], token 12 of 30, author: smith2019, auth: none",
    ],
)
def test_what_only_reads_like_one_stays(text: str) -> None:
    assert redacted(text) == text
