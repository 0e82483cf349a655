import re
import secrets
import string
import zlib

BASE36 = string.digits + string.ascii_lowercase
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase

_IDENTIFIER_LENGTH = 20  # 103 random bits; the contract asks for 96
_SECRET_LENGTH = 43  # 256 random bits
_CHECKSUM_LENGTH = 6  # 62**6 is the first power that holds 32 bits

_CLIENT_ID = re.compile(r"lv_ci_[0-9a-z]{20}")
_CLIENT_SECRET = re.compile(r"lv_cs_[0-9A-Za-z]{49}")


def generate_secret_id() -> str:
    """Return a new `sec_…`, the credential's identifier in URLs."""
    return "sec_" + _random(BASE36, _IDENTIFIER_LENGTH)


def generate_client_id() -> str:
    """Return a new `lv_ci_…`, the public login name."""
    return "lv_ci_" + _random(BASE36, _IDENTIFIER_LENGTH)


def generate_client_secret() -> str:
    """Return a new `lv_cs_…`: 43 random characters and the checksum of all before it."""
    body = "lv_cs_" + _random(BASE62, _SECRET_LENGTH)
    return body + checksum(body)


def is_client_id(text: str) -> bool:
    """Tell whether the text has the format of a client ID; only the database knows if it is one."""
    return _CLIENT_ID.fullmatch(text) is not None


def is_client_secret(text: str) -> bool:
    """Tell whether the text has a client secret's format and checksum: no typo, not made up."""
    if not _CLIENT_SECRET.fullmatch(text):
        return False
    body = text[:-_CHECKSUM_LENGTH]
    return text == body + checksum(body)


def checksum(body: str) -> str:
    """Return the CRC-32 of the ASCII text, as six base62 digits, most significant first."""
    remainder = zlib.crc32(body.encode("ascii"))
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        remainder, digit = divmod(remainder, len(BASE62))
        digits = BASE62[digit] + digits
    return digits


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))
