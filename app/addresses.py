"""Client addresses: each has one spelling, however a proxy or the system writes it."""

import re
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

# What proxies write: the longest IPv6 address in brackets, with a zone and a port.
_MAX_LENGTH = 80
_BRACKETS_OR_PORT = re.compile(r"\[([^\]]+)\](?::[0-9]{1,5})?|([^:]+):[0-9]{1,5}")
_IPV6_PREFIX = 64  # the least that a provider gives to one customer
_CACHED_ADDRESSES = 4096
_CACHED_LISTS = 256  # of networks: one of 50 takes 20 KB


def canonical_address(text: str) -> str | None:
    """Return the address in its one spelling, or None if the text is not an address.

    A port, brackets and a zone are dropped: a zone means something only to the machine that wrote
    it. An IPv4 address that is mapped into IPv6 becomes IPv4 again.
    """
    return _canonical(text) if len(text) <= _MAX_LENGTH else None


def client_address(peer: str, forwarded: str, *, proxies: int) -> str | None:
    """Return the client's address, or None if there is none.

    It is `peer`, from where the connection comes, or with `proxies` that many entries from the
    right of X-Forwarded-For. `forwarded` is the whole header, with several joined by commas. Its
    entries are not unquoted: clients write those on the left, and a quote there must not hide the
    others. `peer` is empty for a Unix socket.
    """
    if not proxies:
        return canonical_address(peer)
    entries = forwarded.rsplit(",", proxies)
    return canonical_address(entries[-proxies].strip(" \t")) if len(entries) >= proxies else None


@lru_cache(maxsize=_CACHED_ADDRESSES)
def limit_key(address: str | None) -> str:
    """Return what counts as one client of rate limits: an IPv4 address, or the /64 of an IPv6 one.

    `address` is canonical. Clients without an address all count as one.
    """
    if address is None or ":" not in address:
        return address or ""
    return str(IPv6Network((address, _IPV6_PREFIX), strict=False))


@lru_cache(maxsize=_CACHED_ADDRESSES)
def is_within(networks: str, address: str | None) -> bool:
    """Tell whether the address lies in one of the networks. No network has an unknown address.

    `networks` are canonical, with commas between them. `address` is canonical too.
    """
    if address is None:
        return False
    parsed = ip_address(address)
    return any(parsed in network for network in _networks(networks))


@lru_cache(maxsize=_CACHED_LISTS)
def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(map(ip_network, text.split(",")))


@lru_cache(maxsize=_CACHED_ADDRESSES)
def _canonical(text: str) -> str | None:
    enclosed = _BRACKETS_OR_PORT.fullmatch(text)
    try:
        address = ip_address(enclosed[1] or enclosed[2] if enclosed else text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or IPv6Address(int(address))
    return str(address)
