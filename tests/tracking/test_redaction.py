"""Masking of secrets; ordinary text is unchanged."""

import json
import re
import shlex
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from experiments.config import register
from experiments.config.reference import sections
from experiments.tracking import redaction
from experiments.tracking.redaction import (
    MASK,
    is_secret_name,
    mask,
    mask_command,
    mask_override,
    mask_tree,
    mask_value,
    remember_secrets,
)

SECRET = "hunter2-Geheim9"

LEAKS: tuple[str, ...] = (
    "postgresql://user:{}@db.example.com:5432/mlflow",
    "http://:{}@host",
    "https://{}@github.com/user/repo.git",
    "https://host/path?token={}&x=1",
    "https://host/path?x=1&password={}",
    "https://store/blob?sv=2020&sig={}",
    "--password={}",
    "--password {}",
    "python train.py --api-key {} epochs=3",
    "+data.token={}",
    "data.api_key={}",
    "AWS_SECRET_ACCESS_KEY={}",
    "export HF_TOKEN={}",
    "SMTP_PASS={}",
    "password: {}",
    "password: {} with blanks",
    "  access_token: '{}'",
    '{{"client_secret": "{}", "x": 1}}',
    "{{'apiKey': '{}'}}",
    '+password = "{}"',
    '-    api_key: str = "{}"',
    'os.environ["MY_TOKEN"] = "{}"',
    'if token == "{}":',
    "dict(token='{}', x=1)",
    "Authorization: Basic {}",
    "Authorization: Bearer {}",
    "curl -H 'X: Bearer {}'",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
    "+-----BEGIN PRIVATE KEY-----\n+{}\n",
    "Server=db;Uid=me;Pwd={};",
    "AccountName=x;AccountKey={};EndpointSuffix=y",
    'RuntimeError: login failed for password="{}"',
    "curl -u bob:{} https://host",
    "curl -ubob:{}",
    "+    curl --user='bob:two words {}' https://host",
    '["curl", "-u", "bob:{}", "https://host"]',
    "curl --proxy-user :{}",
    "{{password: two words {}}}",
    "+logging.tags.d={{a: b, password: two {}, c: d}}",
    "{{a: {{b: c}}, 'token' : [x y, {}]}}",
)

ORDINARY = (
    "optimizer.learning_rate=0.1",
    "max_tokens=5",
    "tokenizer: bert-base",
    "model.cls_token=true",
    "pad_token=[PAD]",
    "token=null",
    "api_key: ${oc.env:MY_KEY}",
    "password=",
    "def login(password: str) -> None:",
    "+    token = os.environ['TOKEN']",
    "+    token = read_token(path)",
    "http://localhost:5000/a@b",
    "http://localhost:5000",
    "ssh://git@github.com/user/repo.git",
    "git@github.com:user/repo.git",
    "sqlite:///mlflow.db",
    "forward_pass=2 compass=north",
    "key: value",
    "monitor.metric=val_loss",
    "@@ -1,2 +1,2 @@\n-a = 1\n+a = 2\n",
    "The bearer of bad news",
    "data.path=/home/me/Bilder und Töne",
    "keras.optimizers.Adam(learning_rate=0.001)",
    "docker run -u 1000:1000 image",
    "python -u -m experiments.train a:b",
    "pytest -u tests/test_a.py::test_b",
    "mlflow -u http://localhost:5000",
    "{token: ${oc.env:MY_TOKEN}, seed: 3}",
    "{token: null, seed: 3}",
    "{'token': read_token(path, 3), 'seed': 3}",
)


@pytest.mark.parametrize("leak", LEAKS)
def test_secret_is_masked(leak: str) -> None:
    masked = mask(leak.format(SECRET))
    assert SECRET not in masked
    assert MASK in masked
    assert mask(masked) == masked


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert mask(text) == text


FORMS: tuple[Callable[[str], str], ...] = (
    "epochs=3 password={}".format,
    "https://user:{}@host/path".format,
    "https://host/?x=1&token={}".format,
    '"api_key": "{}"'.format,
    "secret: {}".format,
)


@given(
    secret=st.text(st.characters(codec="ascii", categories=("L", "N"), include_characters="-_.+*!%$^~"), min_size=8),
    form=st.sampled_from(FORMS),
)
def test_secret_with_arbitrary_characters_is_masked(secret: str, form: Callable[[str], str]) -> None:
    secret = f"S{secret}9"
    assert secret not in mask(form(secret))


@given(st.lists(st.sampled_from(["seed=3", "model.dropout=0.5", "loss", "a: b", "x = f(1)", "\n"])).map(" ".join))
def test_combined_ordinary_text_is_unchanged(text: str) -> None:
    assert mask(text) == text


def test_only_password_of_address_is_masked() -> None:
    assert mask("http://me:pa:ss@host:5000/x") == "http://me:***@host:5000/x"


@pytest.mark.parametrize(
    "token",
    [
        "ghp_" + "a1" * 18,
        "github_pat_" + "b2" * 20,
        "AKIA" + "A1" * 8,
        "sk-" + "c3" * 16,
        "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxw",
    ],
)
def test_token_of_known_form_is_masked(token: str) -> None:
    assert mask(f"cloned with {token} today") == f"cloned with {MASK} today"


def test_value_of_secret_environment_variable_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_PASSWORD", "s3cr/t value")
    monkeypatch.setenv("OTHER_TOKEN", "abc")
    assert mask("found s3cr/t value and s3cr%2Ft%20value, abc stays") == f"found {MASK} and {MASK}, abc stays"


def test_value_of_pwd_variable_is_not_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/home/someone/project")
    assert mask("in /home/someone/project") == "in /home/someone/project"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["python", "-m", "x", "--password", "a b"], "python -m x --password '***'"),
        (["python", "data.token=a b,c"], "python 'data.token=***'"),
        (["python", "seed=3", "name=a b"], "python seed=3 'name=a b'"),
        (["python", "logging.tracking_uri=http://u:pw@h"], "python 'logging.tracking_uri=http://u:***@h'"),
    ],
)
def test_command_arguments_are_masked_separately(arguments: list[str], expected: str) -> None:
    assert mask_command(arguments) == expected


def test_tree_is_masked_by_key_and_content() -> None:
    tree = {"a": {"password": "x y", "pin_token": 12}, "uris": ["http://u:p@h"], "seed": 3, "token": None, "ok": True}
    assert mask_tree(tree) == {
        "a": {"password": MASK, "pin_token": MASK},
        "uris": ["http://u:***@h"],
        "seed": 3,
        "token": None,
        "ok": True,
    }


def test_value_of_secret_name_is_masked() -> None:
    assert mask_value("data.api_key", "abc def") == MASK
    assert mask_value("model.cls_token", "abc") == "abc"


SECRET_NAMES = re.findall(
    r"\S+",
    """
    pass pw pwd password passwords passwd passphrase passcode PGPASSWORD MYSQL_PWD SMTP_PASS db_pass userPass
    db.passwd db_password dbPassword redis_password2 admin-password password_hash secret secrets client_secret
    clientSecret secret_value AWS_SECRET_ACCESS_KEY token HF_TOKEN authToken authtoken access_token
    refresh_token backend_token pin_token AWS_SESSION_TOKEN GITHUB_PAT key_of_service_token api_key apiKey
    apikey API-KEY X-Api-Key WANDB_API_KEY OPENAI_API_KEY kaggle_key KAGGLE_KEY AWS_ACCESS_KEY_ID AccountKey
    storage_account_key STRIPE_KEY ACME_KEY s3.secret_key private_key ssh_key signing_key encryption_key
    subscription_key license_key auth oauth authorization Authorization proxy_authorization bearer jwt otp
    cookie cookies session_cookie credential credentials GOOGLE_APPLICATION_CREDENTIALS cred creds dsn
    SENTRY_DSN sas connection_string connectionString AZURE_STORAGE_CONNECTION_STRING conn_pwd webhook
    SLACK_WEBHOOK webhook_url logging.tags.api_key callbacks.notify.smtp_pass
    """,
)
ORDINARY_NAMES = re.findall(
    r"\S+",
    """
    key keys KEY keyboard monkey donkey hockey turkey_count dict_key dictionary_key primary_key PRIMARY_KEY
    foreign_key sort_key cache_key public_key image_key label_key feature_key key_dim tokenizer tokenize tokens
    max_tokens num_tokens pad_token eos_token eos_token_id mask_token class_token oov_token pass_through passes
    forward_pass backward_pass num_pass compass bypass passenger author authors authored_by path patterns
    secretary cookies_cutter credit compassion conductor seed PWD OLDPWD tags data.path monitor.metric
    learning_rate experiment_name
    """,
)


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_name_is_secret(name: str) -> None:
    assert is_secret_name(name)
    assert mask(f"{name}={SECRET}") == f"{name}={MASK}"
    assert mask(f'{{"{name}": "{SECRET}", "seed": 3}}') == f'{{"{name}": {MASK}, "seed": 3}}'
    assert mask(f"--{name} {SECRET} epochs=3") == f"--{name} {MASK} epochs=3"


@pytest.mark.parametrize("name", ORDINARY_NAMES)
def test_name_is_not_secret(name: str) -> None:
    assert not is_secret_name(name)
    assert mask(f"{name}=Value-1 --{name} Value-2 '{name}': Value-3") == (
        f"{name}=Value-1 --{name} Value-2 '{name}': Value-3"
    )


def test_no_key_of_the_configuration_is_a_secret() -> None:
    register()
    assert [key.name for section in sections() for key in section.keys if is_secret_name(key.name)] == []


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ("${oc.env:MY_KEY}", "${oc.env:MY_KEY}"),
        ("'${oc.env:MY_KEY,null}'", "'${oc.env:MY_KEY,null}'"),
        ("null", "null"),
        ("${oc.env:MY_KEY,hunter2}", MASK),
        ("hunter2(x)", MASK),
        ("", ""),
    ],
)
def test_reference_to_a_secret_is_kept_but_not_its_default(value: str, masked: str) -> None:
    assert mask_override(f"+data.api_key={value}") == f"+data.api_key={masked}"


def test_secrets_of_a_config_are_masked_in_any_text_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_remembered", set())
    config = {
        "store": {"password": "geheim-77", "user": "somebody"},
        "auth": ["person", "geheim/88"],
        "uri": "http://me:geheim%4099@host/x?sig=geheim55",
        "database": "postgresql://mlflow:mlflow@host",
        "pw": "short",
    }
    remember_secrets(config)
    text = "geheim-77, geheim/88 or geheim%2F88, geheim@99, geheim%4099, geheim55; somebody, mlflow, short, host"
    assert mask(text) == "***, *** or ***, ***, ***, ***; somebody, mlflow, short, host"


VALUES = (
    "correct  horse\tbattery",
    "line one\nline two\r\n  line three\n",
    "ab'cd\\ef\"gh12345",
    "'quoted\"",
    "\\\\server\\n\\share",
    "päss & <wörd>\t€",
    "a+b%20c/d=e",
)
WRITINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "one line": lambda text: " ".join(text.split()),
    "lines joined": lambda text: " ".join(line.strip() for line in text.splitlines()),
    "repr": repr,
    "repr within repr": lambda text: repr([repr(f"it's {text}")]),
    "ascii": ascii,
    "JSON": json.dumps,
    "JSON within JSON": lambda text: json.dumps(json.dumps(text)),
    "readable JSON": lambda text: json.dumps(text, ensure_ascii=False),
    "YAML": yaml.safe_dump,
    "readable YAML": lambda text: yaml.safe_dump(text, allow_unicode=True, width=10),
    "shell": shlex.quote,
    "address": lambda text: quote(text, safe=""),
}


@pytest.mark.parametrize("writing", WRITINGS)
def test_known_secret_is_masked_however_it_is_written(monkeypatch: pytest.MonkeyPatch, writing: str) -> None:
    left = {}
    for value in VALUES:
        monkeypatch.setenv("MY_TOKEN", value)
        masked = mask(f"before {WRITINGS[writing](value)} after")
        if MASK not in masked or any(word in masked for word in re.findall(r"[^\W_]{3,}", value)):
            left[value] = masked
    assert left == {}


def test_values_below_a_secret_key_are_masked() -> None:
    tree = {"credentials": {"user": "me", "parts": ["a1", "b2"], "count": 3, "enabled": True}}
    assert mask_tree(tree) == {"credentials": {"user": MASK, "parts": [MASK, MASK], "count": MASK, "enabled": True}}


LONG: tuple[str, ...] = (
    "{token: " * 20_000,
    "{token: {" * 20_000,
    ".-u" * 50_000,
    "-u '" * 50_000,
    "\\" * 200_000,
    "ab " * 100_000,
)
LONG += ("ab" + " " * 200_000, "\"'" * 100_000)


def test_masking_takes_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that goes back for each of its starts would take minutes."""
    for number, value in enumerate(('"\\" ab c', "ab  ab  d", "\\" * 20 + "x", "'\"" * 10 + "x")):
        monkeypatch.setenv(f"MY_{number}_TOKEN", value)
    began = time.process_time()
    for text in ("a-" * 100_000, "token: " * 20_000, "--token " * 20_000, "a: b " * 20_000, "x" * 500_000, *LONG):
        mask(f"{text} token=x")
    assert time.process_time() - began < 5
