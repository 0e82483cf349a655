import json
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from time import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, rsa
from jwt.algorithms import OKPAlgorithm
from jwt.utils import base64url_encode

from app.identity import tokens
from app.identity.key_sources import KeyFile
from app.identity.tokens import Claims, InvalidToken, TokenExpired, TokenVerifier
from tests.helpers import claims_named, typo_of
from tests.issuer import ALGORITHMS, AUDIENCE, ISSUER, Issuer, valid_claims


@pytest.fixture
def verifier_with(issuer, tmp_path):
    """Return a function that makes a verifier for claims with other names."""
    (tmp_path / "jwks.json").write_bytes(issuer.jwks())

    def verifier_with(**names):
        return TokenVerifier(
            KeyFile(tmp_path / "jwks.json", ALGORITHMS),
            algorithms=ALGORITHMS,
            issuer=ISSUER,
            audience=AUDIENCE,
            claims=claims_named(**names),
        )

    return verifier_with


@pytest.fixture
def verifier(verifier_with):
    return verifier_with()


def encode(part):
    return urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_each_allowed_algorithm_is_valid(verifier, issuer, algorithm):
    assert verifier.verify(issuer.sign(algorithm)) == Claims(
        "ada", "unit_demo", frozenset(), frozenset()
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_tampered_token_is_rejected(verifier, issuer, algorithm):
    header, _, signature = issuer.sign(algorithm).split(".")
    forged = f"{header}.{encode(valid_claims() | {'sub': 'eve'})}.{signature}"
    with pytest.raises(InvalidToken, match="the signature is not by the issuer's key"):
        verifier.verify(forged)


@pytest.mark.parametrize("algorithm", ["none", "None", "", "HS256", "RS512", None, 5, ["EdDSA"]])
def test_a_token_with_a_different_algorithm_is_rejected(verifier, algorithm):
    forged = f"{encode({'alg': algorithm, 'kid': 'EdDSA'})}.{encode(valid_claims())}.AAAA"
    with pytest.raises(InvalidToken, match="algorithm"):
        verifier.verify(forged)


def test_an_unsigned_token_is_rejected(verifier):
    with pytest.raises(InvalidToken):
        verifier.verify(jwt.encode(valid_claims(), None, algorithm="none"))


def test_a_token_signed_by_hmac_with_the_public_key_is_rejected(verifier, issuer):
    body = f"{encode({'alg': 'HS256', 'kid': 'RS256'})}.{encode(valid_claims())}"
    signature = jwt.get_algorithm_by_name("HS256").sign(body.encode(), issuer.pem("RS256"))
    forged = f"{body}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    with pytest.raises(InvalidToken, match="algorithm not allowed"):
        verifier.verify(forged)


@pytest.mark.parametrize("claimed", ["RS256", "ES256"])
def test_a_token_whose_algorithm_does_not_match_its_key_is_rejected(verifier, issuer, claimed):
    _, payload, signature = issuer.sign("EdDSA").split(".")
    forged = f"{encode({'alg': claimed, 'kid': 'EdDSA'})}.{payload}.{signature}"
    with pytest.raises(InvalidToken, match="no key of the issuer"):
        verifier.verify(forged)


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk"])
def test_a_key_named_by_the_token_itself_is_ignored(verifier, issuer, name):
    eve = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(eve.public_key(), as_dict=True)
    named = jwk if name == "jwk" else "http://127.0.0.1:1/jwks.json"
    forged = jwt.encode(valid_claims(), eve, "RS256", headers={"kid": "RS256", name: named})
    with pytest.raises(InvalidToken, match="the signature is not by the issuer's key"):
        verifier.verify(forged)
    assert verifier.verify(issuer.sign(headers={name: named})).subject == "ada"


@pytest.mark.parametrize("key_id", ["../../etc/passwd", "/dev/null", "' OR 1=1 --", "", "x" * 999])
def test_an_unknown_key_id_is_rejected(verifier, issuer, key_id):
    with pytest.raises(InvalidToken, match="no key of the issuer"):
        verifier.verify(issuer.sign(headers={"kid": key_id}))


@pytest.mark.parametrize("key_id", [5, ["EdDSA"], {"a": 1}])
def test_a_key_id_of_the_wrong_type_is_rejected(verifier, key_id):
    forged = f"{encode({'alg': 'EdDSA', 'kid': key_id})}.{encode(valid_claims())}.AAAA"
    with pytest.raises(InvalidToken):
        verifier.verify(forged)


def test_a_token_without_a_key_id_is_valid_if_only_one_key_fits(verifier, issuer):
    assert verifier.verify(issuer.sign(headers={"kid": None})).subject == "ada"


# Several keys, and names of curves


def verifier_of(entries, algorithms, tmp_path):
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": entries}))
    return TokenVerifier(
        KeyFile(tmp_path / "jwks.json", algorithms),
        algorithms=algorithms,
        issuer=ISSUER,
        audience=AUDIENCE,
        claims=claims_named(),
    )


@pytest.mark.parametrize("position", [0, 1, 2])
def test_each_of_several_keys_with_one_key_id_is_tried(tmp_path, position):
    issuers = [Issuer() for _ in range(3)]
    verifier = verifier_of([each.jwk("EdDSA") for each in issuers], ALGORITHMS, tmp_path)
    assert verifier.verify(issuers[position].sign()).subject == "ada"
    with pytest.raises(InvalidToken, match="wrong audience"):
        verifier.verify(issuers[position].sign(aud="another"))
    with pytest.raises(InvalidToken, match="the signature is not by the issuer's key"):
        verifier.verify(Issuer().sign())


def test_a_token_without_a_key_id_is_rejected_if_several_keys_fit(tmp_path):
    issuers = [Issuer(), Issuer()]
    verifier = verifier_of([each.jwk("EdDSA") for each in issuers], ALGORITHMS, tmp_path)
    with pytest.raises(InvalidToken, match="no key ID, and several keys of the issuer suit"):
        verifier.verify(issuers[0].sign(headers={"kid": None}))


CURVES = {"Ed25519": ed25519.Ed25519PrivateKey, "Ed448": ed448.Ed448PrivateKey}


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("named", ["EdDSA", "curve"])
@pytest.mark.parametrize("allowed", [["RS256", "EdDSA"], ["curve"], ["EdDSA", "curve"]])
def test_a_token_may_name_the_curve_of_eddsa(tmp_path, curve, named, allowed):
    allowed = [curve if each == "curve" else each for each in allowed]
    algorithm = curve if named == "curve" else named
    private = CURVES[curve].generate()
    entry = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True) | {"alg": algorithm}
    verifier = verifier_of([entry], allowed, tmp_path)
    token = jwt.encode(valid_claims(), private, algorithm)
    if algorithm in allowed or "EdDSA" in allowed:
        assert verifier.verify(token).subject == "ada"
    else:
        with pytest.raises(InvalidToken, match="algorithm not allowed"):
            verifier.verify(token)


@pytest.mark.parametrize("curve", CURVES)
def test_a_curve_is_allowed_only_with_eddsa_or_by_its_name(issuer, tmp_path, curve):
    verifier = verifier_of([issuer.jwk("ES256")], ["RS256", "ES256"], tmp_path)
    with pytest.raises(InvalidToken, match="algorithm not allowed"):
        verifier.verify(jwt.encode(valid_claims(), CURVES[curve].generate(), curve))


@pytest.mark.parametrize("claim", ["exp", "iss", "aud", "sub"])
def test_a_token_without_a_required_claim_is_rejected(verifier, issuer, claim):
    with pytest.raises(InvalidToken, match=f"the claim {claim} is missing"):
        verifier.verify(issuer.sign(without=(claim,)))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": time() - 60},
        {"nbf": 4_102_444_800},
        {"iat": 4_102_444_800},
        {"iss": "https://evil.example"},
        {"aud": "another service"},
        {"aud": []},
        {"aud": ["another service"]},
    ],
)
def test_a_token_for_another_time_issuer_or_audience_is_rejected(verifier, issuer, claims):
    with pytest.raises(InvalidToken):
        verifier.verify(issuer.sign(**claims))


@pytest.mark.parametrize(("claim", "seconds"), [("exp", -20), ("nbf", 20), ("iat", 20)])
def test_clocks_may_differ_by_thirty_seconds(verifier, issuer, claim, seconds):
    assert verifier.verify(issuer.sign(**{claim: time() + seconds})).subject == "ada"


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_of_the_future_is_not_valid_yet(verifier, issuer, claim):
    with pytest.raises(InvalidToken, match="not valid yet"):
        verifier.verify(issuer.sign(**{claim: time() + 32}))


def test_a_token_may_have_several_audiences(verifier, issuer):
    assert verifier.verify(issuer.sign(aud=["another service", AUDIENCE])).subject == "ada"


WRONG_TYPES = [
    *(("exp", value) for value in ("4102444800", True, [], {}, 1e30, 10**30, -1)),
    *(("exp", float(value)) for value in ("inf", "nan")),
    *((name, value) for name in ("nbf", "iat") for value in ("0", True, [], -1, None)),
    *(("sub", value) for value in (5, None, [], {}, "", "a\x00b", "a\nb", "\ud800", "x" * 256)),
    *(("iss", value) for value in (5, None, [ISSUER], {})),
    *(("aud", value) for value in (5, {"a": 1}, [5])),
    *(("unit_id", value) for value in (5, True, ["unit_demo"], {}, "a\x00", "\udfff", "x" * 256)),
    *(("unit_ids", value) for value in ("unit_demo", 5, {"unit_demo": 1}, [5], [None], [""])),
    *(("unit_ids", value) for value in ([["unit_demo"]], ["a\x00"], False)),
]


@pytest.mark.parametrize(("claim", "value"), WRONG_TYPES, ids=ascii)
def test_a_claim_of_the_wrong_type_is_rejected(verifier, issuer, claim, value):
    token = sign_anything(issuer, valid_claims() | {claim: value})
    with pytest.raises(InvalidToken):
        verifier.verify(token)


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("4102444800", "a time is not a number"),
        ("tomorrow", "a time is not a number"),
        (["0"], "a time is not a number"),
        (-1, "a time is out of range"),
        (float("inf"), "a time is out of range"),
    ],
)
def test_the_reason_says_what_is_wrong_with_a_time(verifier, issuer, claim, value, reason):
    with pytest.raises(InvalidToken) as refusal:
        verifier.verify(sign_anything(issuer, valid_claims() | {claim: value}))
    assert str(refusal.value) == reason


def test_the_signature_is_checked_before_the_times(verifier, issuer):
    header, _, signature = issuer.sign().split(".")
    forged = f"{header}.{encode(valid_claims() | {'exp': 'tomorrow'})}.{signature}"
    with pytest.raises(InvalidToken, match="the signature is not by the issuer's key"):
        verifier.verify(forged)


def sign_anything(issuer, claims):
    """Sign claims that PyJWT itself rejects."""
    return jwt.PyJWS().encode(
        json.dumps(claims).encode(), issuer.keys["EdDSA"], "EdDSA", headers={"kid": "EdDSA"}
    )


@pytest.mark.parametrize("value", [None, ""])
def test_a_null_or_empty_unit_counts_as_no_unit(verifier, issuer, value):
    assert verifier.verify(issuer.sign(unit_id=value)).unit_id is None


def test_a_token_carries_the_units_that_it_lists(verifier, issuer):
    claims = verifier.verify(issuer.sign(unit_ids=["unit_a", "unit_b", "unit_a"]))
    assert claims.unit_ids == {"unit_a", "unit_b"}


def test_a_token_without_units_is_valid(verifier, issuer):
    assert verifier.verify(issuer.sign(without=("unit_id",), unit_ids=None)).unit_id is None


# Claims under other names

NAMESPACED = {
    "unit": "https://example.com/unit",
    "units": "/leadvibe/units",
    "role": "/realm_access/roles",
}


def test_claims_are_read_under_their_configured_names(verifier_with, issuer):
    token = issuer.sign(
        **{
            "https://example.com/unit": "unit_a",
            "leadvibe": {"units": ["unit_b"]},
            "realm_access": {"roles": ["manager"]},
        },
        unit_ids=["unit_c"],
    )
    assert verifier_with(**NAMESPACED).verify(token) == Claims(
        "ada", "unit_a", frozenset({"unit_b"}), frozenset({"manager"})
    )


@pytest.mark.parametrize("roles", ["manager", ["manager"]])
def test_one_role_may_be_a_string(verifier_with, issuer, roles):
    assert verifier_with(role="roles").verify(issuer.sign(roles=roles)).roles == {"manager"}


@pytest.mark.parametrize(
    "claims", [{}, {"leadvibe": None}, {"leadvibe": ["units"]}, {"leadvibe": {"units": None}}]
)
def test_a_claim_that_is_not_where_it_should_be_counts_as_missing(verifier_with, issuer, claims):
    token = issuer.sign(**claims, realm_access="roles")
    assert verifier_with(**NAMESPACED).verify(token) == Claims(
        "ada", None, frozenset(), frozenset()
    )


@pytest.mark.parametrize("name", ["scope", "scp", "/realm/scope", "/realm/scp"])
@pytest.mark.parametrize(
    ("value", "roles"),
    [
        ("openid credentials:write", {"openid", "credentials:write"}),
        ("credentials:write", {"credentials:write"}),
        ("  a  b ", {"a", "b"}),
        (["openid", "credentials:write"], {"openid", "credentials:write"}),
        (["openid credentials:write"], {"openid", "credentials:write"}),
        ("a\u00a0b", {"a\u00a0b"}),
        ("", set()),
        ([], set()),
        (None, set()),
    ],
)
def test_scopes_are_separated_by_spaces(verifier_with, issuer, name, value, roles):
    claims = {name: value}
    if name.startswith("/"):
        claims = {"realm": {name.removeprefix("/realm/"): value}}
    assert verifier_with(role=name).verify(issuer.sign(**claims)).roles == roles


@pytest.mark.parametrize("value", [5, True, {}, {"a": 1}, ["a", 5], ["a", None]])
def test_a_scope_that_is_not_text_is_rejected(verifier_with, issuer, value):
    with pytest.raises(InvalidToken, match="scope is neither a string nor a list of strings"):
        verifier_with(role="scope").verify(issuer.sign(scope=value))


@pytest.mark.parametrize(
    "name", ["roles", "scopes", "SCOPE", "https://example.com/scope", "/scope/roles"]
)
def test_a_role_may_have_spaces(verifier_with, issuer, name):
    role = "Credential Admin"
    claims = {"scope": {"roles": role}} if name.startswith("/") else {name: role}
    assert verifier_with(role=name).verify(issuer.sign(**claims)).roles == {role}


@pytest.mark.parametrize("value", [None, [], ""])
def test_a_role_claim_without_a_role_counts_as_missing(verifier_with, issuer, value):
    roles = verifier_with(role="roles").verify(issuer.sign(roles=value)).roles
    assert not roles - {""}


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        (
            {"https://example.com/unit": ["unit_a"]},
            "https://example.com/unit is not a string of 1-255 valid characters",
        ),
        ({"leadvibe": {"units": "unit_a"}}, "/leadvibe/units is not a list"),
        (
            {"leadvibe": {"units": [5]}},
            "an entry of /leadvibe/units is not a string of 1-255 valid characters",
        ),
        (
            {"realm_access": {"roles": {"manager": True}}},
            "/realm_access/roles is neither a string nor a list of strings",
        ),
        ({"sub": "a\nb"}, "sub is not a string of 1-255 valid characters"),
    ],
)
def test_the_reason_names_the_claim_of_the_wrong_type(verifier_with, issuer, claims, reason):
    with pytest.raises(InvalidToken) as refusal:
        verifier_with(**NAMESPACED).verify(issuer.sign(**claims))
    assert str(refusal.value) == reason


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
def test_a_token_may_declare_itself_an_access_token(verifier, issuer, kind):
    assert verifier.verify(issuer.sign(headers={"typ": kind})).subject == "ada"


@pytest.mark.parametrize("kind", ["dpop+jwt", "logout+jwt", 5, []])
def test_a_token_of_another_type_is_rejected(verifier, kind):
    forged = f"{encode({'alg': 'EdDSA', 'kid': 'EdDSA', 'typ': kind})}.{encode({})}.AAAA"
    with pytest.raises(InvalidToken, match="unexpected typ"):
        verifier.verify(forged)


def test_a_token_with_an_unknown_critical_extension_is_rejected(verifier, issuer):
    forged = f"{encode({'alg': 'EdDSA', 'crit': ['x'], 'x': 1})}.{encode(valid_claims())}.AAAA"
    with pytest.raises(InvalidToken):
        verifier.verify(forged)


@pytest.mark.parametrize(
    "token",
    [
        "x", "..", "a.b", "a.b.c", "a.b.c.d", "é.é.é", "e30.e30.e30", ".e30.", "\x00",
        "bnVsbA.bnVsbA.AAAA", f"{encode([])}.{encode({})}.AAAA",
        urlsafe_b64encode(b"[" * 5000).decode().rstrip("=") + ".e30.AAAA",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_malformed_token_is_rejected(verifier, token):
    with pytest.raises(InvalidToken):
        verifier.verify(token)


@pytest.mark.parametrize("payload", [b"null", b"[]", b"5", b"{", b"\xff", b"[" * 3000])
def test_a_payload_that_is_not_a_json_object_is_rejected(verifier, issuer, payload):
    token = jwt.PyJWS().encode(payload, issuer.keys["EdDSA"], "EdDSA", headers={"kid": "EdDSA"})
    with pytest.raises(InvalidToken):
        verifier.verify(token)


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]
)
@pytest.mark.parametrize("part", [0, 1])
def test_header_and_payload_are_utf_8(verifier, issuer, encoding, part):
    parts = [{"alg": "EdDSA", "kid": "EdDSA"}, valid_claims() | {"sub": "adé"}]

    def sign(*encodings):
        texts = [json.dumps(each, ensure_ascii=False) for each in parts]
        encoded = b".".join(
            base64url_encode(text.encode(each)) for text, each in zip(texts, encodings, strict=True)
        )
        signature = base64url_encode(issuer.keys["EdDSA"].sign(encoded))
        return b".".join([encoded, signature]).decode()

    assert verifier.verify(sign("utf-8", "utf-8")).subject == "adé"
    encodings = ["utf-8", "utf-8"]
    encodings[part] = encoding
    with pytest.raises(InvalidToken, match="malformed"):
        verifier.verify(sign(*encodings))


def test_the_reason_does_not_quote_the_token(verifier, issuer):
    token = issuer.sign(sub="s3cret-subject\n", iss="s3cret-issuer")
    with pytest.raises(InvalidToken) as reason:
        verifier.verify(token)
    assert "s3cret" not in str(reason.value)
    assert reason.value.__cause__ is None
    assert reason.value.__suppress_context__


# The last and the first value that count


def test_a_token_is_expired_after_30_seconds_of_leeway(verifier, issuer):
    assert verifier.verify(issuer.sign(exp=int(time()) - 28))
    with pytest.raises(TokenExpired):
        verifier.verify(issuer.sign(exp=int(time()) - 30))


@pytest.mark.parametrize("claims", [{"nbf": 0}, {"iat": 0}, {"exp": 253402300799}])
def test_the_first_and_the_last_second_are_valid_times(verifier, issuer, claims):
    assert verifier.verify(issuer.sign(**claims))


@pytest.mark.parametrize("claims", [{"nbf": -1}, {"iat": -1}, {"exp": 253402300800}])
def test_a_time_that_rfc_3339_cannot_write_is_rejected(verifier, issuer, claims):
    with pytest.raises(InvalidToken, match="out of range"):
        verifier.verify(issuer.sign(**claims))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/jwt", "application/AT+JWT"])
def test_each_type_of_access_token_is_valid(verifier, issuer, typ):
    assert verifier.verify(issuer.sign(headers={"typ": typ}))


# Tokens are remembered


@pytest.fixture
def keys(issuer, tmp_path):
    """A file of keys. After the file has changed, `open` reads it again."""
    (tmp_path / "keys.json").write_bytes(issuer.jwks())
    return KeyFile(tmp_path / "keys.json", ALGORITHMS)


@pytest.fixture
def remembering(keys):
    return TokenVerifier(
        keys,
        algorithms=ALGORITHMS,
        issuer=ISSUER,
        audience=AUDIENCE,
        claims=claims_named(role="roles"),
    )


@pytest.fixture
def signatures(monkeypatch):
    """The tokens whose signature was checked, in order."""
    checked = []
    decode = jwt.decode

    def decode_and_record(token, *arguments, **options):
        checked.append(token)
        return decode(token, *arguments, **options)

    monkeypatch.setattr(jwt, "decode", decode_and_record)
    return checked


@pytest.fixture
def clock(monkeypatch):
    """Return a function that moves the verifier's clock."""
    return lambda seconds: monkeypatch.setattr(tokens, "time", lambda: time() + seconds)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_signature_of_a_token_is_checked_once(remembering, issuer, signatures, algorithm):
    token = issuer.sign(algorithm, unit_ids=["a", "b"], roles="manager")
    first = remembering.verify(token)
    assert first == Claims("ada", "unit_demo", frozenset("ab"), frozenset(["manager"]))
    assert remembering.verify(token) == first
    assert signatures == [token]


def test_a_remembered_token_ends_with_its_key(remembering, issuer, keys, tmp_path):
    eddsa, rs256 = issuer.sign("EdDSA"), issuer.sign("RS256")
    for token in (eddsa, rs256):
        remembering.verify(token)
    (tmp_path / "keys.json").write_bytes(issuer.jwks("RS256"))
    keys.open()
    with pytest.raises(InvalidToken, match="no key of the issuer"):
        remembering.verify(eddsa)
    assert remembering.verify(rs256).subject == "ada"
    (tmp_path / "keys.json").write_bytes(issuer.jwks())
    keys.open()
    assert remembering.verify(eddsa).subject == "ada"


def test_a_remembered_token_ends_when_another_key_gets_its_key_id(
    remembering, issuer, keys, tmp_path
):
    token = issuer.sign("EdDSA")
    remembering.verify(token)
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    jwk = jwt.algorithms.OKPAlgorithm.to_jwk(other, as_dict=True) | {"kid": "EdDSA"}
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [jwk]}))
    keys.open()
    for _ in range(2):
        with pytest.raises(InvalidToken, match="the signature is not by the issuer's key"):
            remembering.verify(token)


def test_a_remembered_token_without_a_key_id_ends_when_it_becomes_ambiguous(
    remembering, issuer, keys, tmp_path
):
    token = issuer.sign("EdDSA", headers={"kid": None})
    remembering.verify(token)
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    jwk = jwt.algorithms.OKPAlgorithm.to_jwk(other, as_dict=True)
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [issuer.jwk("EdDSA"), jwk]}))
    keys.open()
    with pytest.raises(InvalidToken, match="several keys of the issuer"):
        remembering.verify(token)


def test_a_remembered_token_expires(remembering, issuer, clock, signatures):
    token = issuer.sign(exp=int(time()) + 600)
    remembering.verify(token)
    clock(600 + tokens.LEEWAY_SECONDS - 5)
    assert remembering.verify(token).subject == "ada"
    clock(600 + tokens.LEEWAY_SECONDS + 1)
    with pytest.raises(TokenExpired):
        remembering.verify(token)
    assert signatures == [token]


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_remembered_token_starts_again_if_the_clock_is_set_back(
    remembering, issuer, clock, claim
):
    token = issuer.sign(**{claim: time()})
    remembering.verify(token)
    clock(-60)
    with pytest.raises(InvalidToken, match="not valid yet"):
        remembering.verify(token)


def test_only_valid_tokens_are_remembered(remembering, issuer, signatures):
    valid = issuer.sign()
    remembering.verify(valid)
    refused = [
        typo_of(valid, -40),  # in the signature of a remembered token
        f"{valid.rpartition('.')[0]}.",
        issuer.sign(exp=int(time()) - 60),
        issuer.sign(nbf=int(time()) + 60),
        issuer.sign(sub=""),
        issuer.sign(aud="another service"),
    ]
    for token in refused:
        for _ in range(2):
            with pytest.raises(InvalidToken):
                remembering.verify(token)
    assert [signatures.count(token) for token in (valid, *refused)] == [1, *[2] * len(refused)]


def test_a_thousand_tokens_are_remembered(remembering, issuer, signatures):
    remembered = [issuer.sign(sub=f"user {n}") for n in range(1024)]
    for token in (*remembered, *remembered):
        remembering.verify(token)
    assert signatures == remembered
    remembering.verify(issuer.sign())
    for token in (*remembered[1:], remembered[0]):
        remembering.verify(token)
    assert signatures[1025:] == [remembered[0]]


def test_a_long_token_is_not_remembered(remembering, issuer, signatures):
    token = issuer.sign(picture="x" * 4096)
    for _ in range(2):
        assert remembering.verify(token).subject == "ada"
    assert signatures == [token, token]


def test_threads_get_the_claims_of_their_own_tokens(remembering, issuer, keys, tmp_path):
    """More tokens than are remembered, each also with a forged signature."""
    valid = {issuer.sign(sub=f"user {n}"): f"user {n}" for n in range(1100)}
    forged = [f"{token[:-10]}{token[-20:-10]}" for token in valid]

    def subject_of(token):
        try:
            return remembering.verify(token).subject
        except InvalidToken:
            return None

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            sent = [token for pair in zip(valid, forged, strict=True) for token in pair]
            assert list(pool.map(subject_of, sent)) == [valid.get(token) for token in sent]
        (tmp_path / "keys.json").write_bytes(issuer.jwks("RS256"))
        keys.open()
        assert set(pool.map(subject_of, valid)) == {None}
