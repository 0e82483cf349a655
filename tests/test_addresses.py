"""Client addresses."""

import pytest

from app.addresses import canonical_address, client_address, is_within, limit_key


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:51001", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::FFFF:cb00:7107", "203.0.113.7"),
        ("0:0:0:0:0:ffff:203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:51001", "203.0.113.7"),
        ("2001:db8::9", "2001:db8::9"),
        ("2001:DB8::9", "2001:db8::9"),
        ("2001:0db8:0:0::9", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("[2001:0DB8::9]:51001", "2001:db8::9"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:443", "fe80::1"),
        ("::ffff:203.0.113.7%2", "203.0.113.7"),
        ("::1", "::1"),
    ],
)
def test_an_address_has_one_spelling(text, address):
    assert canonical_address(text) == address
    assert canonical_address(address) == address


@pytest.mark.parametrize(
    "text",
    [
        "", " ", '"', '"203.0.113.7"', "unknown", "_hidden", "localhost", "unix:", "[]", "[", "]",
        "203.0.113", "203.0.113.256", "203.0.113.07", "203.0.113.7:", "203.0.113.7:http",
        "203.0.113.7:123456", "203.0.113.7 ", "203.0.113.0/24", "3405803783", "٢٠٣.0.113.7",
        "[2001:db8::9", "2001:db8::9]", "[2001:db8::9]51001", "[[2001:db8::9]]", "[2001:db8::9]:",
        "2001:db8:::9", "12345::", "fe80::1%", "fe80::1%a%b", "203.0.113.7\n", "\0",
        "fe80::1%" + "z" * 80, "1" * 5000,
    ],
)  # fmt: skip
def test_other_texts_are_not_addresses(text):
    assert canonical_address(text) is None


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "", "127.0.0.1"),
        (0, "192.0.2.1", "127.0.0.1"),
        (1, "192.0.2.1", "192.0.2.1"),
        (1, "192.0.2.1, 192.0.2.2", "192.0.2.2"),
        (1, "192.0.2.1,\t192.0.2.2:80 ", "192.0.2.2"),
        (2, "192.0.2.1, 192.0.2.2", "192.0.2.1"),
        (2, "192.0.2.9,192.0.2.1, [2001:db8::1]:80", "192.0.2.1"),
        (1, '", 192.0.2.2', "192.0.2.2"),
        (1, '"192.0.2.1, 192.0.2.2', "192.0.2.2"),
        (2, 'x", 192.0.2.1, 192.0.2.2', "192.0.2.1"),
        (1, "", None),
        (2, "192.0.2.1", None),
        (3, "192.0.2.1, 192.0.2.2", None),
        (1, '"', None),
        (1, "192.0.2.1, unknown", None),
        (1, "192.0.2.1,", None),
        (2, '"192.0.2.1, 192.0.2.2"', None),
    ],
)
def test_proxies_report_the_client_address(proxies, forwarded, address):
    assert client_address("127.0.0.1", forwarded, proxies=proxies) == address


def test_a_unix_socket_has_no_address():
    assert client_address("", "", proxies=0) is None
    assert client_address("", "192.0.2.1", proxies=1) == "192.0.2.1"


def test_limits_count_ipv6_by_64_bits():
    assert limit_key("203.0.113.7") == "203.0.113.7"
    assert limit_key("2001:db8::9") == limit_key("2001:db8::ffff:9:9:9") == "2001:db8::/64"
    assert limit_key("2001:db8:0:1::9") == "2001:db8:0:1::/64"
    assert limit_key(None) == ""


def test_an_address_is_within_its_networks_of_the_same_family():
    networks = "203.0.113.7,198.51.100.0/24,2001:db8::/32,::1"
    within = ("203.0.113.7", "198.51.100.0", "198.51.100.255", "2001:db8::9", "::1")
    outside = ("203.0.113.8", "198.51.101.0", "0.0.0.1", "2001:db9::", "::2", "::", None)
    assert [is_within(networks, each) for each in within] == [True] * len(within)
    assert [is_within(networks, each) for each in outside] == [False] * len(outside)
