"""The address that the samples and the Markdown name."""

import re

# The pages are rendered with this address. A response has the one that it is served from instead.
ORIGIN = "http://127.0.0.1:8000"

# A host in a shell command, in HTML and in Markdown: RFC 3986 allows `$`, `'` and `;` in one.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def origin_of(host: str, forwarded_proto: str, *, behind_proxies: bool) -> str:
    """Return the origin that a request names in its headers, or ORIGIN if it names none.

    A proxy's `X-Forwarded-Proto` counts only if there is one: anybody can send it.
    """
    if not _HOST.fullmatch(host):
        return ORIGIN
    nearest = forwarded_proto.rpartition(",")[2].strip()
    scheme = "https" if behind_proxies and nearest.lower() == "https" else "http"
    return f"{scheme}://{host}"


def with_origin(content: bytes, origin: str) -> bytes:
    """Return the page or the text, with the origin in its samples."""
    return content.replace(ORIGIN.encode(), origin.encode())
