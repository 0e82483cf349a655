import sys

import pytest

pytestmark = pytest.mark.long


def test_openapi_python_client_makes_a_client_for_this_version_and_later_ones(
    address, run, tmp_path, integrate
):
    (tmp_path / "generator.yaml").write_text("post_hooks: []  # no formatting\n")
    run(
        *(sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"),
        *("--url", f"{address}/openapi.json", "--meta", "none"),
        *("--output-path", "leadvibe_client", "--config", "generator.yaml"),
    )
    integrate_with_python(integrate, "with_openapi_python_client.py")


def test_datamodel_code_generator_makes_models_for_this_version_and_later_ones(
    address, run, integrate
):
    run(
        *(sys.executable, "-m", "datamodel_code_generator", "--allow-private-network"),
        *("--url", f"{address}/openapi.json", "--input-file-type", "openapi"),
        *("--output", "leadvibe_models.py", "--output-model-type", "pydantic_v2.BaseModel"),
        *("--use-annotated", "--formatters", "builtin", "--target-python-version", "3.11"),
    )
    integrate_with_python(integrate, "with_datamodel_code_generator.py")


def integrate_with_python(integrate, name):
    integrate(
        name,
        check=(sys.executable, "-m", "mypy", "--strict", name),
        execute=(sys.executable, name),
    )
