"""An identity provider with a real key for every algorithm."""

import json
from time import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://issuer.example"
AUDIENCE = "leadvibe-credentials"
ALGORITHMS = ("RS256", "ES256", "EdDSA")

_TO_JWK = {
    "RS256": RSAAlgorithm.to_jwk,
    "ES256": ECAlgorithm.to_jwk,
    "EdDSA": OKPAlgorithm.to_jwk,
}


class Issuer:
    """Signs tokens. It has one key for each algorithm, and the key ID is the algorithm's name."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {
            "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }

    def jwk(self, algorithm: str) -> dict[str, Any]:
        public_key = self.keys[algorithm].public_key()
        return {"kid": algorithm, "use": "sig"} | _TO_JWK[algorithm](public_key, as_dict=True)

    def jwks(self, *algorithms: str) -> bytes:
        return json.dumps(
            {"keys": [self.jwk(algorithm) for algorithm in algorithms or self.keys]}
        ).encode()

    def pem(self, algorithm: str) -> bytes:
        public_key = self.keys[algorithm].public_key()
        return public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(
        self,
        algorithm: str = "EdDSA",
        *,
        headers: dict[str, Any] | None = None,
        without: tuple[str, ...] = (),
        **claims: Any,
    ) -> str:
        """Return a valid token, except for what the arguments change."""
        headers = {"kid": algorithm} | (headers or {})
        payload = valid_claims() | claims
        for name in without:
            del payload[name]
        return jwt.encode(
            payload,
            self.keys[algorithm],
            algorithm=algorithm,
            headers={name: value for name, value in headers.items() if value is not None},
        )


def valid_claims() -> dict[str, Any]:
    return {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "exp": int(time()) + 600,
        "unit_id": "unit_demo",
    }
