"""Random sequences of all operations in two units, compared with a small model."""

from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from app.credentials.errors import CredentialNotFound
from app.credentials.generator import generate_secret_id
from app.credentials.service import CredentialService
from tests.conftest import Rows
from tests.helpers import caller, is_live

UNITS = st.sampled_from(["a", "b"])
NAMES = st.sampled_from(["one", "two", "three"])


@dataclass
class Modelled:
    """What the model knows about a credential. `live` has its secrets, oldest first."""

    unit: str
    name: str
    live: list[str]
    expiring: set[str] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)
    trust: bool = False
    revoked: bool = False
    events: list[str] = field(default_factory=lambda: ["issued"])

    def end(self, secret):
        self.live.remove(secret)
        self.expiring.discard(secret)
        self.ended.append(secret)


class Credentials(RuleBasedStateMachine):
    service: CredentialService
    rows: Rows
    secret_ids = Bundle("secret_ids")

    def __init__(self):
        super().__init__()
        self.model = {}
        self.example = uuid4().hex  # no other example uses its units

    def caller(self, unit):
        return caller(f"unit_{unit}_{self.example}")

    @rule(target=secret_ids, unit=UNITS, name=NAMES)
    def issue(self, unit, name):
        issued = self.service.issue(self.caller(unit), name=name)
        self.model[issued.secret_id] = Modelled(unit, name, [issued.client_secret])
        return issued.secret_id

    @rule(target=secret_ids)
    def invent(self):
        return generate_secret_id()

    @rule(unit=UNITS, secret_id=secret_ids, trust=st.booleans(), name=st.none() | NAMES)
    def update(self, unit, secret_id, trust, name):
        known = self.attempt(
            unit, secret_id, self.service.update, trust_upstream_consent=trust, name=name
        )
        if known:
            before = (known.trust, known.name)
            known.trust, known.name = trust, name or known.name
            if (known.trust, known.name) != before:
                known.events.append("updated")

    @rule(unit=UNITS, secret_id=secret_ids, overlap=st.sampled_from([0, 3600, 86400]))
    def rotate(self, unit, secret_id, overlap):
        known = self.attempt(unit, secret_id, self.service.rotate, overlap_seconds=overlap)
        if known:
            for oldest in known.live[:-1]:
                known.end(oldest)
            if overlap == 0:
                for previous in list(known.live):
                    known.end(previous)
            known.expiring |= set(known.live)
            known.live.append(self.result.client_secret)
            known.events.append("rotated")

    @rule(unit=UNITS, secret_id=secret_ids)
    def revoke(self, unit, secret_id):
        known = self.attempt(unit, secret_id, self.service.revoke)
        if known:
            for secret in list(known.live):
                known.end(secret)
            known.revoked = True
            known.events.append("revoked")

    @rule()
    def let_every_overlap_end(self):
        self.rows.execute("UPDATE client_secrets SET expires_at = now() WHERE expires_at > now()")
        for known in self.model.values():
            for secret in list(known.expiring):
                known.end(secret)

    @rule(unit=UNITS, secret_id=secret_ids)
    def read(self, unit, secret_id):
        known = self.attempt(unit, secret_id, self.service.get)
        if known:
            shown = self.result
            assert (shown.name, shown.trust_upstream_consent) == (known.name, known.trust)
            hints = [secret[-4:] for secret in reversed(known.live)]
            assert [secret.hint for secret in shown.secrets] == hints

    @rule(unit=UNITS, secret_id=secret_ids)
    def read_the_trail(self, unit, secret_id):
        known = self.model.get(secret_id)
        if known is None or known.unit != unit:
            with pytest.raises(CredentialNotFound):
                self.service.events(self.caller(unit), secret_id)
            return
        trail = self.service.events(self.caller(unit), secret_id).items
        assert [each.event for each in reversed(trail)] == known.events

    def attempt(self, unit, secret_id, operation, **arguments):
        """Call the operation. Return what the model knows if the unit has the credential."""
        known = self.model.get(secret_id)
        mine = known is not None and known.unit == unit and not known.revoked
        if not mine:
            with pytest.raises(CredentialNotFound):
                operation(self.caller(unit), secret_id, **arguments)
            return None
        self.result = operation(self.caller(unit), secret_id, **arguments)
        return known

    @invariant()
    def each_unit_lists_its_own(self):
        for unit in ("a", "b"):
            listed = {each.secret_id for each in self.service.list(self.caller(unit)).items}
            assert listed == {
                secret_id
                for secret_id, known in self.model.items()
                if known.unit == unit and not known.revoked
            }

    @invariant()
    def the_live_secrets_work_and_no_others(self):
        for known in self.model.values():
            assert len(known.live) <= 2
            assert all(is_live(self.rows, secret) for secret in known.live)
            assert not any(is_live(self.rows, secret) for secret in known.ended)


def test_any_sequence_of_operations_matches_the_model(service, rows, monkeypatch):
    monkeypatch.setattr(Credentials, "service", service, raising=False)
    monkeypatch.setattr(Credentials, "rows", rows, raising=False)
    run_state_machine_as_test(
        Credentials,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
