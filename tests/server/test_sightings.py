"""Both workers record who is refused, and who uses a client secret."""

from app.credentials.generator import generate_client_secret
from tests.helpers import basic, caller
from tests.running_server import wait_until


def test_the_owner_sees_a_refusal_and_a_first_use(server, service, issued, rows):
    def send(client_secret):
        return server.request("GET", "/verify", **basic(issued.client_id, client_secret)).status

    assert send(issued.client_secret) == 200
    assert send(generate_client_secret()) == 401
    wait_until(lambda: service.get(caller(), issued.secret_id).last_refused is not None)
    wait_until(lambda: service.get(caller(), issued.secret_id).last_used_at is not None)
    shown = service.get(caller(), issued.secret_id)
    assert (shown.last_refused.reason, shown.last_refused.address) == ("wrong", "127.0.0.1")
    assert shown.secrets[0].last_used_from == "127.0.0.1"
    [event] = rows("SELECT address FROM credential_events WHERE event = 'first_used'")
    assert event["address"] == "127.0.0.1"
