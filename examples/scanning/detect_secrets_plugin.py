"""A plugin of detect-secrets that finds client secrets of LeadVibe Credentials.

It checks the checksum, so it reports nothing that only looks like one.
"""

import re
import string
import zlib
from collections.abc import Generator
from typing import Any

from detect_secrets.plugins.base import RegexBasedDetector

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_CHECKSUM_LENGTH = 6


class LeadVibeClientSecretDetector(RegexBasedDetector):
    """Finds `lv_cs_`, 43 random characters, and the checksum of all of that."""

    secret_type = "LeadVibe client secret"  # noqa: S105  a name
    denylist = (re.compile(r"(?<![0-9A-Za-z])lv_cs_[0-9A-Za-z]{49}(?![0-9A-Za-z])"),)

    def analyze_string(self, string: str, **_: Any) -> Generator[str, None, None]:
        """Yield each client secret in the text."""
        for found in super().analyze_string(string):
            if found.endswith(_checksum(found[:-_CHECKSUM_LENGTH])):
                yield found


def _checksum(text: str) -> str:
    """Return the CRC-32 as base62, most significant digit first."""
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits
