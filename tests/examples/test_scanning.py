"""Scanners find client secrets, and the one that checks the checksum finds nothing else."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import filterfalse, islice
from pathlib import Path
from random import Random

import pytest
import yaml
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import transient_settings

from app.credentials.generator import BASE62, generate_client_secret, is_client_secret
from tests.helpers import typo_of
from tests.running_server import ROOT

SCANNING = ROOT / "examples" / "scanning"
PLUGIN = SCANNING / "detect_secrets_plugin.py"
README = (SCANNING / "README.md").read_text()
DETECTOR = {"name": "LeadVibeClientSecretDetector", "path": f"file://{PLUGIN}"}


def found_in(path):
    with transient_settings({"plugins_used": [DETECTOR]}):
        return [each.secret_value for each in scan_file(str(path))]


def test_detect_secrets_finds_every_client_secret(tmp_path):
    real = [generate_client_secret() for _ in range(1000)]
    (tmp_path / "real").write_text("\n".join(f"SECRET={each}" for each in real))
    assert set(found_in(tmp_path / "real")) == set(real)


def test_detect_secrets_finds_nothing_with_a_wrong_checksum(tmp_path):
    random = Random(1)  # noqa: S311  the same texts each time
    texts = iter(lambda: "lv_cs_" + "".join(random.choices(BASE62, k=49)), None)
    wrong = list(islice(filterfalse(is_client_secret, texts), 100_000))
    lines = [" ".join(wrong[n : n + 100]) for n in range(0, len(wrong), 100)]
    (tmp_path / "wrong").write_text("\n".join(lines))
    assert found_in(tmp_path / "wrong") == []


def patterns():
    """Return the regular expressions of the scanners that have no plugin."""
    gitleaks = tomllib.loads((SCANNING / "gitleaks.toml").read_text())
    trufflehog = yaml.safe_load((SCANNING / "trufflehog.yaml").read_text())
    [rule], [detector] = gitleaks["rules"], trufflehog["detectors"]
    assert rule["keywords"] == detector["keywords"] == ["lv_cs_"]
    [format_] = re.findall(r"^\| Secret format \| `(.*)` \|$", README, re.MULTILINE)
    # what GitHub puts around it by default
    github = rf"(?:\A|[^0-9A-Za-z])({format_})(?:\Z|[^0-9A-Za-z])"
    return [rule["regex"], detector["regex"]["client_secret"], github]


@pytest.mark.parametrize(
    "line",
    ["CLIENT_SECRET={}", 'secret: "{}"', "https://lv_ci_x:{}@h", "({}),", "x_{}", "{}\\n", "'{}'+"],
)
def test_what_surrounds_a_client_secret_does_not_hide_it(tmp_path, line):
    client_secret = generate_client_secret()
    (tmp_path / "file").write_text(line.format(client_secret) + "\n")
    assert found_in(tmp_path / "file") == [client_secret]
    for pattern in patterns():
        assert re.findall(pattern, line.format(client_secret)) == [client_secret]


@pytest.mark.parametrize("line", ["x{}", "{}x", "0{}"])
def test_a_longer_word_is_not_a_client_secret(tmp_path, line):
    text = line.format(generate_client_secret())
    (tmp_path / "file").write_text(text + "\n")
    assert found_in(tmp_path / "file") == []
    for pattern in patterns():
        assert re.findall(pattern, text) == []


def test_the_code_in_the_readme_checks_the_checksum():
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code, names)  # noqa: S102  the page is ours
    client_secret = generate_client_secret()
    assert names["is_client_secret"](client_secret)
    assert not names["is_client_secret"](typo_of(client_secret))


def test_the_command_in_the_readme_finds_a_client_secret(tmp_path):
    (tmp_path / "settings.py").write_text(f'SECRET = "{generate_client_secret()}"\n')
    shutil.copy(PLUGIN, tmp_path)
    [command] = re.findall(r"^detect-secrets (scan .*)$", README, re.MULTILINE)
    done = subprocess.run(
        [Path(sys.executable).parent / "detect-secrets", *command.split(), "settings.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)["results"]["settings.py"]
    assert "LeadVibe client secret" in {each["type"] for each in found}
