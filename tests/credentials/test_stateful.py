"""Random sequences of all operations in two units, compared with a small model."""

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
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

from app.credentials.errors import (
    ClientSecretNotFound,
    CredentialInUse,
    CredentialNotFound,
    LastSecret,
    SecretLimitReached,
    VerificationRefused,
)
from app.credentials.generator import generate_secret_id
from app.credentials.management import CredentialService
from app.credentials.model import CredentialChanges
from app.credentials.verification import Verifier
from tests.conftest import Rows
from tests.helpers import caller, is_live

UNITS = st.sampled_from(["a", "b"])
NAMES = st.sampled_from(["one", "two", "three"])


@dataclass
class Modelled:
    """A credential as the model expects it. `live` has its client secrets, oldest first."""

    unit: str
    name: str
    live: list[str]
    expiring: set[str] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)
    trust: bool = False
    enabled: bool = True
    disabled_with_unit: bool = False
    used: bool = False
    used_secrets: set[str] = field(default_factory=set)
    is_old: bool = False
    young: set[str] = field(default_factory=set)  # client secrets made since it got old
    revoked: bool = False
    events: list[str] = field(default_factory=lambda: ["issued"])

    def end(self, secret):
        self.live.remove(secret)
        self.expiring.discard(secret)
        self.ended.append(secret)

    def revoke(self):
        for secret in list(self.live):
            self.end(secret)
        self.revoked = True
        self.events.append("revoked")


def in_an_hour():
    return datetime.now(UTC) + timedelta(hours=1)


class Credentials(RuleBasedStateMachine):
    service: CredentialService
    verifier: Verifier
    rows: Rows
    secret_ids = Bundle("secret_ids")

    def __init__(self):
        super().__init__()
        self.model = {}
        self.example = uuid4().hex  # no other example uses its units

    def caller(self, unit):
        return caller(f"unit_{unit}_{self.example}")

    @rule(target=secret_ids, unit=UNITS, name=NAMES, expires=st.booleans())
    def issue(self, unit, name, expires):
        issued = self.service.issue(
            self.caller(unit), name=name, expires_at=in_an_hour() if expires else None
        )
        known = Modelled(unit, name, [issued.client_secret])
        known.expiring = set(known.live) if expires else set()
        self.model[issued.secret_id] = known
        return issued.secret_id

    @rule(target=secret_ids, unit=UNITS, name=NAMES)
    def issue_twice_with_one_key(self, unit, name):
        caller = self.caller(unit)
        key = uuid4().hex
        issued = self.service.issue(caller, name=name, idempotency_key=key)
        replayed = self.service.issue(caller, name=name, idempotency_key=key)
        assert asdict(replayed) == asdict(issued)
        self.model[issued.secret_id] = Modelled(unit, name, [issued.client_secret])
        return issued.secret_id

    @rule(target=secret_ids)
    def invent(self):
        return generate_secret_id()

    @rule(
        unit=UNITS,
        secret_id=secret_ids,
        trust=st.booleans(),
        name=st.none() | NAMES,
        enabled=st.none() | st.booleans(),
    )
    def update(self, unit, secret_id, trust, name, enabled):
        known = self.attempt(
            unit,
            secret_id,
            self.service.update,
            changes=CredentialChanges(trust_upstream_consent=trust, name=name, enabled=enabled),
        )
        if known:
            before = (known.trust, known.name)
            known.trust, known.name = trust, name or known.name
            if (known.trust, known.name) != before:
                known.events.append("updated")
            if enabled is not None:
                if (known.enabled, known.disabled_with_unit) != (enabled, False):
                    known.events.append("enabled" if enabled else "disabled")
                known.enabled, known.disabled_with_unit = enabled, False

    @rule(unit=UNITS)
    def disable_all(self, unit):
        awake = [each for each in self.of_unit(unit) if each.enabled]
        assert self.service.disable_all(self.caller(unit)) == len(awake)
        for known in awake:
            known.enabled, known.disabled_with_unit = False, True
            known.events.append("disabled")

    @rule(unit=UNITS)
    def enable_all(self, unit):
        asleep = [each for each in self.of_unit(unit) if each.disabled_with_unit]
        assert self.service.enable_all(self.caller(unit)) == len(asleep)
        for known in asleep:
            known.enabled, known.disabled_with_unit = True, False
            known.events.append("enabled")

    @rule(unit=UNITS, secret_id=secret_ids, newest=st.booleans())
    def end_secret(self, unit, secret_id, newest):
        known = self.of(unit, secret_id)
        live = known.live if known else []
        secret = live[-1 if newest else 0] if live else "none"
        if known and len(live) < 2:
            with pytest.raises(LastSecret if live else ClientSecretNotFound):
                self.service.end_secret(self.caller(unit), secret_id, secret[-4:])
        elif self.attempt(unit, secret_id, self.service.end_secret, hint=secret[-4:]):
            known.end(secret)
            known.events.append("secret_ended")

    @rule(unit=UNITS, secret_id=secret_ids)
    def use(self, unit, secret_id):
        known = self.of(unit, secret_id)
        if known and known.live:
            client_id = self.service.get(self.caller(unit), secret_id).client_id
            pair = {"client_id": client_id, "client_secret": known.live[-1]}
            if known.enabled:
                found = self.verifier.verify(**pair)
                assert found.credential.secret_id == secret_id
                self.service.writer.flush()
                known.used = True
                if known.live[-1] not in known.used_secrets:
                    known.used_secrets.add(known.live[-1])
                    known.events.append("first_used")
            else:
                with pytest.raises(VerificationRefused):
                    self.verifier.verify(**pair)

    @rule(unit=UNITS, secret_id=secret_ids, is_old=st.booleans())
    def revoke_unless_used(self, unit, secret_id, is_old):
        known = self.of(unit, secret_id)
        if known and is_old:
            known.is_old = True
            known.young.clear()
            for table in ("credentials", "client_secrets"):
                self.rows.execute(
                    f"UPDATE {table} SET created_at = created_at - interval '1 day' "
                    "WHERE secret_id = %(secret_id)s",
                    secret_id=secret_id,
                )
        if known and (known.used or not known.is_old or known.young & set(known.live)):
            with pytest.raises(CredentialInUse):
                self.service.revoke(self.caller(unit), secret_id, unused_for=3600)
        elif self.attempt(unit, secret_id, self.service.revoke, unused_for=3600):
            known.revoke()

    @rule(unit=UNITS)
    def revoke_all(self, unit):
        revoked = self.of_unit(unit)
        assert self.service.revoke_all(self.caller(unit)) == len(revoked)
        for known in revoked:
            known.revoke()

    @rule(unit=UNITS, secret_id=secret_ids, overlap=st.sampled_from([0, 3600, 86400]))
    def rotate(self, unit, secret_id, overlap):
        known = self.of(unit, secret_id)
        if known and overlap and len(known.live) == 2:
            with pytest.raises(SecretLimitReached):
                self.service.rotate(self.caller(unit), secret_id, overlap_seconds=overlap)
        elif self.attempt(unit, secret_id, self.service.rotate, overlap_seconds=overlap):
            if overlap == 0:
                for previous in list(known.live):
                    known.end(previous)
            known.expiring |= set(known.live)
            known.live.append(self.result.client_secret)
            known.young.add(self.result.client_secret)
            known.events.append("rotated")

    @rule(unit=UNITS, secret_id=secret_ids)
    def revoke(self, unit, secret_id):
        known = self.attempt(unit, secret_id, self.service.revoke)
        if known:
            known.revoke()

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
            assert (shown.disabled_at is None) == known.enabled
            assert (shown.last_used_at is not None) == known.used
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

    def of_unit(self, unit):
        return [each for each in self.model.values() if each.unit == unit and not each.revoked]

    def of(self, unit, secret_id):
        """Return the model's credential, or None if the unit lacks it."""
        known = self.model.get(secret_id)
        return known if known in self.of_unit(unit) else None

    def attempt(self, unit, secret_id, operation, **arguments):
        """Call the operation. Return the model's credential, or None if the unit lacks it."""
        known = self.of(unit, secret_id)
        if known is None:
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
            assert {is_live(self.rows, secret) for secret in known.live} <= {known.enabled}
            assert not any(is_live(self.rows, secret) for secret in known.ended)


def test_any_sequence_of_operations_matches_the_model(service, verifier, rows, monkeypatch):
    monkeypatch.setattr(Credentials, "service", service, raising=False)
    monkeypatch.setattr(Credentials, "verifier", verifier, raising=False)
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
