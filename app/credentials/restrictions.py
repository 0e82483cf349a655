"""What a credential may do, and from where: its scopes and its addresses."""

import re
from collections.abc import Collection, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from app.credentials.errors import InvalidRestriction

SCOPE_PATTERN = "[a-z][a-z0-9._-]{0,31}"
MAX_SCOPES = 16
MAX_ADDRESSES = 50

_SCOPE = re.compile(SCOPE_PATTERN)
_NETWORK = re.compile(r"[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?")  # so without a zone or a netmask
_MAPPED = IPv6Network("::ffff:0:0/96")  # IPv4 addresses; ours are written as IPv4

_ADDRESS_RULE = "Must be an IP address or a network, such as 203.0.113.7 or 2001:db8::/32"
_TWICE = "Must not be given twice"


def is_scope(text: str) -> bool:
    """Tell whether the text may be a scope."""
    return _SCOPE.fullmatch(text) is not None


def check_scopes(words: Sequence[str], known: Collection[str]) -> list[str]:
    """Return the scopes in their order, each of which must be one of the known ones.

    Raises InvalidRestriction.
    """
    if not known:
        raise InvalidRestriction("scopes", "are not configured")
    unknown = f"Must be one of: {', '.join(sorted(known))}"
    problems = {
        position: _TWICE if word in known else unknown
        for position, word in enumerate(words)
        if word not in known or word in words[:position]
    }
    if problems or len(words) > MAX_SCOPES:
        rule = f"must be null or at most {MAX_SCOPES} different scopes"
        raise InvalidRestriction("scopes", rule, problems)
    return sorted(words)


def require_restriction(member: str, values: object) -> None:
    """Raise ValueError unless the values are a valid restriction, in its canonical form.

    A scope need not be known: it may have been removed since.
    """
    if not (isinstance(values, list) and all(isinstance(each, str) for each in values)):
        raise ValueError(member)
    if member == "addresses":
        canonical = parse_addresses(values)
    else:
        canonical = check_scopes(values, list(filter(is_scope, values)) or ["none"])
    if values != canonical:
        raise ValueError(member)


def parse_addresses(texts: Sequence[str]) -> list[str]:
    """Return the addresses and networks in their canonical form. Raises InvalidRestriction."""
    addresses: list[str] = []
    problems: dict[int, str] = {}
    for position, text in enumerate(texts[: MAX_ADDRESSES + 1]):
        try:
            address = _parse_address(text)
        except ValueError as error:
            problems[position] = str(error)
            continue
        if address in addresses:
            problems[position] = _TWICE
        addresses.append(address)
    if problems or not 1 <= len(texts) <= MAX_ADDRESSES:
        rule = f"must be null or 1-{MAX_ADDRESSES} different IP addresses or networks"
        raise InvalidRestriction("addresses", rule, problems)
    return addresses


def _parse_address(text: str) -> str:
    """Return the address or network in its canonical form. Raises ValueError with what is wrong."""
    if not _NETWORK.fullmatch(text):
        raise ValueError(_ADDRESS_RULE)
    try:
        network: IPv4Network | IPv6Network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(_ADDRESS_RULE) from None
    if network.prefixlen == 0:
        raise ValueError("Must not be every address: use null instead")
    if isinstance(network, IPv6Network) and network.overlaps(_MAPPED):
        raise ValueError("Must be written as IPv4, not as IPv4-mapped IPv6")
    if ip_network(text.partition("/")[0]).network_address != network.network_address:
        raise ValueError(f"Must not have host bits: the network is {network}")
    is_single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if is_single else network)
