import subprocess
import sys

from tests.conftest import environment
from tests.running_server import HANG_SECONDS, ROOT, clean_environment

PROGRAM = """
from app import create_app

app = create_app()
app.services.open()
print(app.test_client().get("/readyz").status_code)
"""


def test_a_process_that_never_closes_its_services_still_ends(settings):
    """This holds even while a thread probes the database."""
    unreachable = environment(settings, database_url="postgresql://postgres@127.0.0.1:1/x")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=clean_environment() | unreachable,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=HANG_SECONDS,
    )
    assert ended.stdout.splitlines()[-1] == "503"
