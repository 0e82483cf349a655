import pytest

from app.identity.claim_paths import ClaimPath

TOKEN = {
    "unit_id": "unit_demo",
    "https://example.com/unit": "unit_a",
    "extn.unit": "unit_b",
    "realm_access": {"roles": ["manager"], "a/b": {"~": "deep"}},
    "/odd": "unit_c",
    "null": None,
    "units": ["unit_a", {"id": "unit_b"}],
    "": "unit_d",
}


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("unit_id", "unit_demo"),
        ("/unit_id", "unit_demo"),
        ("https://example.com/unit", "unit_a"),
        ("/https:~1~1example.com~1unit", "unit_a"),
        ("extn.unit", "unit_b"),
        ("/realm_access/roles", ["manager"]),
        ("/realm_access/a~1b/~0", "deep"),
        ("/~1odd", "unit_c"),
        ("null", None),
    ],
)
def test_a_claim_is_found_by_its_name_or_a_pointer(text, claim):
    assert ClaimPath.parse(text).find(TOKEN, default="missing") == claim


@pytest.mark.parametrize(
    "text",
    [
        "Unit_id",
        "realm_access/roles",
        "realm_access.roles",
        "/realm_access/roles/0",
        "/units/0",
        "/units/1/id",
        "/unit_id/0",
        "/null/x",
        "/realm_access/rôles",
        "/~01odd",
    ],
)
def test_a_path_to_a_missing_member_or_into_a_list_finds_no_claim(text):
    assert ClaimPath.parse(text).find(TOKEN, default="missing") == "missing"


@pytest.mark.parametrize("text", ["", "/", "//a", "/a/", "/a//b", " ", " a", "a\n", "/a/ b"])
def test_an_empty_name_and_white_space_around_a_name_are_rejected(text):
    with pytest.raises(ValueError, match=r"^empty name, or white space around it$"):
        ClaimPath.parse(text)


@pytest.mark.parametrize("text", ["/~", "/a~", "/~2", "/a/b~x", "/~~0"])
def test_a_tilde_that_escapes_nothing_is_rejected_in_a_pointer(text):
    with pytest.raises(ValueError, match=r"^~ without 0 or 1$"):
        ClaimPath.parse(text)
    assert ClaimPath.parse("a~b").names == ("a~b",)


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"])
def test_a_registered_claim_is_rejected(name):
    for text in (name, f"/{name}", f"/{name}/x"):
        with pytest.raises(ValueError, match=r"^registered claim$"):
            ClaimPath.parse(text)
    assert ClaimPath.parse(f"/x/{name}")


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("unit_id", "unit_id"),
        ("/unit_id", "unit_id"),
        ("/https:~1~1x", "https://x"),
        ("/a/b~1c~0d", "/a/b~1c~0d"),
        ("/~1a", "/~1a"),
        ("a~b", "a~b"),
    ],
)
def test_the_text_of_a_path_parses_to_the_same_path(text, shortest):
    assert str(ClaimPath.parse(text)) == shortest
    assert ClaimPath.parse(shortest) == ClaimPath.parse(text)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("a", "/a", True),
        ("a", "/a/b", True),
        ("/a/b", "a", True),
        ("a", "b", False),
        ("/a/b", "/a/c", False),
        ("a", "ab", False),
    ],
)
def test_paths_overlap_if_they_are_equal_or_one_is_inside_the_other(one, other, overlap):
    assert ClaimPath.parse(one).overlaps(ClaimPath.parse(other)) is overlap
