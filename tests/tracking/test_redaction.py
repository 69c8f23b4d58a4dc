"""Masking of secrets; ordinary text is unchanged."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.tracking.redaction import MASK, is_secret_name, mask, mask_command, mask_tree, mask_value

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


@pytest.mark.parametrize(
    "name", ["password", "db.passwd", "HF_TOKEN", "clientSecret", "AWS_ACCESS_KEY_ID", "backend_token"]
)
def test_name_is_secret(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["max_tokens", "tokenizer", "seed", "key", "PWD", "pad_token", "forward_pass", "monkey"]
)
def test_name_is_not_secret(name: str) -> None:
    assert not is_secret_name(name)
