import shutil
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("integrator.py")


def test_a_generated_python_client_type_checks_and_supports_every_operation(
    address, run, tmp_path, issuer
):
    (tmp_path / "generator.yaml").write_text("post_hooks: []  # no formatting\n")
    run(
        *(sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"),
        *("--url", f"{address}/openapi.json", "--meta", "none"),
        *("--output-path", "leadvibe_client", "--config", "generator.yaml"),
    )
    shutil.copy(SOURCE, tmp_path)
    run(sys.executable, "-m", "mypy", "--strict", SOURCE.name)
    run(sys.executable, SOURCE.name, address, issuer.sign())
