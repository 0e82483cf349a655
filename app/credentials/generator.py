"""New identifiers and client secrets, and their formats.

The patterns mean the same in Python and in JSON Schema (ECMAScript). Use them with `fullmatch`.
"""

import re
import secrets
import string
import zlib

BASE36 = string.digits + string.ascii_lowercase
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase

_IDENTIFIER_LENGTH = 20  # 103 random bits; the contract asks for 96
_SECRET_LENGTH = 43  # 256 random bits
_CHECKSUM_LENGTH = 6  # 62**6 is the first power of 62 above 2**32
HINT_LENGTH = 4

SECRET_ID_PATTERN = f"sec_[0-9a-z]{{{_IDENTIFIER_LENGTH}}}"
CLIENT_ID_PATTERN = f"lv_ci_[0-9a-z]{{{_IDENTIFIER_LENGTH}}}"
CLIENT_SECRET_PATTERN = f"lv_cs_[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}"
HINT_PATTERN = f"[0-9A-Za-z]{{{HINT_LENGTH}}}"

_PAIRS = [high + low for high in BASE62 for low in BASE62]  # of base62 digits

_CLIENT_ID = re.compile(CLIENT_ID_PATTERN)
_CLIENT_ID_WITHIN = re.compile(rf"(?<![0-9A-Za-z_]){CLIENT_ID_PATTERN}(?![0-9A-Za-z_])")
_CLIENT_SECRET = re.compile(CLIENT_SECRET_PATTERN)


def generate_secret_id() -> str:
    """Return a new `sec_…`, the credential's identifier in URLs."""
    return "sec_" + _random(BASE36, _IDENTIFIER_LENGTH)


def generate_client_id() -> str:
    """Return a new `lv_ci_…`, the public login name."""
    return "lv_ci_" + _random(BASE36, _IDENTIFIER_LENGTH)


def generate_client_secret() -> str:
    """Return a new `lv_cs_…`: 43 random characters, then the checksum of everything before it."""
    body = "lv_cs_" + _random(BASE62, _SECRET_LENGTH)
    return body + checksum(body)


def is_client_id(text: str) -> bool:
    """Tell whether the text has the format of a client ID, whether or not it exists."""
    return _CLIENT_ID.fullmatch(text) is not None


def find_client_id(text: str) -> str | None:
    """Return the client ID in a text that somebody may have put quotes or spaces around."""
    found = _CLIENT_ID_WITHIN.search(text)
    return None if found is None else found[0]


def is_client_secret(text: str) -> bool:
    """Tell whether the text has the format and the checksum of a client secret."""
    if not _CLIENT_SECRET.fullmatch(text):
        return False
    body = text[:-_CHECKSUM_LENGTH]
    return text == body + checksum(body)


def checksum(body: str) -> str:
    """Return the CRC-32 of the ASCII text, as six base62 digits, most significant first."""
    remainder, last = divmod(zlib.crc32(body.encode("ascii")), len(_PAIRS))
    first, middle = divmod(remainder, len(_PAIRS))
    return _PAIRS[first] + _PAIRS[middle] + _PAIRS[last]


def hint_of(client_secret: str) -> str:
    """Return the last four characters, by which people tell client secrets apart."""
    return client_secret[-HINT_LENGTH:]


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))
