import pytest
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.credentials.generator import is_client_secret
from tests.helpers import basic


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json


def operations(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield f"{method} {path}", operation


def responses(document, operation):
    """Yield each status and response, with references resolved."""
    shared = document["components"]["responses"]
    for status, response in operation["responses"].items():
        name = response.get("$ref", "").rpartition("/")[2]
        yield int(status), shared[name] if name else response


def schemas_within(schema):
    """Yield the schema and every schema inside it."""
    yield schema
    for inner in schema.get("properties", {}).values():
        yield from schemas_within(inner)
    if "items" in schema:
        yield from schemas_within(schema["items"])


def assert_valid(document, schema, value):
    root = {"components": document["components"], **schema}
    OAS31Validator(root, format_checker=oas31_format_checker).validate(value)


def shape(value):
    """Return the names, order and types of the members, which similar answers share.

    The types of nullable members and the members of an event's detail are left out.
    """
    free = ("last_used_at", "expires_at", "disabled_at", "detail")
    if isinstance(value, dict):
        return {name: None if name in free else shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])]
    return type(value).__name__


def test_the_document_is_valid_openapi_3_1(document):
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


def test_the_document_has_both_security_schemes(document):
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearerAuth"]["scheme"] == "bearer"
    assert schemes["basicAuth"]["scheme"] == "basic"


def test_every_operation_names_its_security_scheme(document):
    for name, operation in operations(document):
        _, path = name.split()
        scheme = {"/secrets": "bearerAuth", "/verify": "basicAuth"}.get(path[:8].rstrip("/"))
        expected = [{scheme: []}] if scheme else []
        assert operation["security"] == expected, name


def test_the_document_describes_every_route_of_the_api(app, document):
    documented = {name.replace("{", "<").replace("}", ">") for name, _ in operations(document)}
    pages = {"/", "/openapi.json", "/llms.txt"}
    for rule in app.url_map.iter_rules():
        if rule.rule not in pages and not rule.rule.startswith("/docs"):
            for method in rule.methods - {"HEAD"}:
                assert f"{method.lower()} {rule.rule}" in documented


def test_every_operation_has_a_title_a_description_and_a_unique_identifier(document):
    identifiers = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(identifiers)) == len(identifiers)
    for name, operation in operations(document):
        assert operation["summary"], name
        assert len(operation["description"]) > 40, name


def test_every_tag_is_described(document):
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    used = {tag for _, operation in operations(document) for tag in operation["tags"]}
    assert used == described


def test_every_string_has_a_pattern_and_every_number_its_limits(document):
    for schema in document["components"]["schemas"].values():
        for each in schemas_within(schema):
            kinds = each.get("type", [])
            kinds = [kinds] if isinstance(kinds, str) else kinds
            if "string" in kinds:
                assert {"pattern", "enum"} & set(each), each
            if "integer" in kinds:
                assert {"minimum", "maximum"} <= set(each), each


def test_every_response_documents_its_headers(document):
    needed = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
    for name, operation in operations(document):
        for status, response in responses(document, operation):
            assert "X-Request-Id" in response["headers"], (name, status)
            if status in needed:
                assert needed[status] in response["headers"], (name, status)
        if any(each.get("name") == "cursor" for each in operation["parameters"]):
            assert "Link" in operation["responses"]["200"]["headers"]


def test_every_error_is_a_problem_document_with_examples(document):
    for name, operation in operations(document):
        for status, response in responses(document, operation):
            if status < 400:
                continue
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, name
            assert content["examples"], name
            for example in content["examples"].values():
                assert example["value"]["status"] == status
                assert_valid(document, content["schema"], example["value"])


@pytest.mark.parametrize(
    ("operation_id", "statuses"),
    [
        ("listCredentials", {200, 400, 401, 403, 503}),
        ("issueCredential", {200, 400, 401, 403, 409, 413, 415, 422, 429, 503}),
        ("getCredential", {200, 400, 401, 403, 404, 503}),
        ("updateCredential", {204, 400, 401, 403, 404, 413, 415, 503}),
        ("revokeCredential", {204, 400, 401, 403, 404, 409, 503}),
        ("endClientSecret", {204, 400, 401, 403, 404, 409, 503}),
        ("rotateCredential", {200, 400, 401, 403, 404, 409, 413, 415, 422, 429, 503}),
        ("listEvents", {200, 400, 401, 403, 404, 503}),
        ("listUnitEvents", {200, 400, 401, 403, 503}),
        ("verify", {200, 401, 429, 503}),
        ("verifyByPost", {200, 401, 413, 429, 503}),
        ("getHealth", {200}),
        ("getReadiness", {200, 503}),
        ("getMetrics", {200}),
    ],
)
def test_every_status_of_an_operation_is_documented(document, operation_id, statuses):
    (operation,) = [each for _, each in operations(document) if each["operationId"] == operation_id]
    assert {int(status) for status in operation["responses"]} == statuses


@pytest.fixture
def real_answers(member):
    """The answer of the service to each operation, with requests like the examples."""
    issued = member.post("/secrets", json={"name": "CRM backend"})
    path = f"/secrets/{issued.json['secret_id']}"
    updated = member.put(path, json={"trust_upstream_consent": True, "name": "x"})
    rotated = member.post(f"{path}/rotate", json={"overlap_seconds": 86400})
    pair = basic(rotated.json["client_id"], rotated.json["client_secret"])
    return {
        "issueCredential": issued,
        "updateCredential": updated,
        "rotateCredential": rotated,
        "verify": member.get("/verify", headers=pair),
        "verifyByPost": member.post("/verify", headers=pair),
        "listCredentials": member.get("/secrets"),
        "getCredential": member.get(path),
        "listEvents": member.get(f"{path}/events"),
        "listUnitEvents": member.get("/secrets/events"),
        "getHealth": member.get("/healthz"),
        "getReadiness": member.get("/readyz"),
        "getMetrics": member.get("/metrics"),
        "endClientSecret": member.delete(f"{path}/secrets/{issued.json['client_secret'][-4:]}"),
        "revokeCredential": member.delete(path),
    }


def test_every_answer_matches_the_document_and_its_example(document, real_answers):
    identifiers = {operation["operationId"] for _, operation in operations(document)}
    assert identifiers == set(real_answers)
    for _, operation in operations(document):
        answer = real_answers[operation["operationId"]]
        documented = operation["responses"][str(answer.status_code)]
        if answer.status_code == 204:
            assert "content" not in documented
            continue
        if answer.mimetype == "text/plain":
            content = documented["content"]["text/plain"]
            assert type(content["example"]) is str
            continue
        content = documented["content"]["application/json"]
        assert_valid(document, content["schema"], content["example"])
        assert_valid(document, content["schema"], answer.json)
        assert shape(content["example"]) == shape(answer.json)


def test_every_example_of_a_request_is_accepted(document, member):
    issued = member.post("/secrets", json={"name": "x"}).json
    tried = 0
    for name, operation in operations(document):
        if "requestBody" in operation:
            method, path = name.split()
            content = operation["requestBody"]["content"]["application/json"]
            assert_valid(document, content["schema"], content["example"])
            answer = member.open(
                path.replace("{secret_id}", issued["secret_id"]),
                method=method.upper(),
                json=content["example"],
            )
            assert answer.status_code in (200, 204), name
            tried += 1
    assert tried == 3


@pytest.mark.parametrize(
    ("name", "is_valid_name"),
    [("CRM", True), (" CRM\n", True), ("x" * 50, True), ("\N{FOX FACE}" * 50, True),
     ("x" * 51, False), ("", False), (" ", False), ("a\x00b", False), ("a\u202eb", False)],
    ids=ascii,
)  # fmt: skip
def test_the_service_accepts_exactly_the_names_that_match_the_pattern(
    document, member, name, is_valid_name
):
    schema = document["components"]["schemas"]["NewCredential"]
    assert OAS31Validator(schema).is_valid({"name": name}) is is_valid_name
    assert (member.post("/secrets", json={"name": name}).status_code == 200) is is_valid_name


def test_the_example_of_a_client_secret_ends_in_its_checksum(document):
    example = document["paths"]["/secrets"]["post"]["responses"]["200"]["content"]
    assert is_client_secret(example["application/json"]["example"]["client_secret"])
