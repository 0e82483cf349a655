import json
import re
from copy import deepcopy

import pytest
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.credentials.generator import is_client_secret
from app.credentials.model import EVENT_NAMES
from tests.helpers import DETAILED_FIELDS, FIELDS, ISSUED_FIELDS, basic, caller, time_in


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


def members_of(schema):
    """Return the schemas of the values in the schema: its properties and items, by name."""
    members = dict(schema.get("properties", {}))
    if "items" in schema:
        members["items"] = schema["items"]
    return members


def schemas_within(schema):
    """Yield the schema and every schema inside it, without following references."""
    yield schema
    parts = [part for name in ("allOf", "anyOf", "oneOf") for part in schema.get(name, [])]
    for inner in [*members_of(schema).values(), *parts]:
        yield from schemas_within(inner)


def fields_of(document, schema):
    """Return the names of the fields of an object, in the order of its parts."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    parts = [fields_of(document, part) for part in schema.get("allOf", [])]
    return sum(parts, list(schema.get("properties", {})))


def references_within(node):
    """Yield the name of each component schema that the node refers to."""
    if isinstance(node, list):
        for each in node:
            yield from references_within(each)
    elif isinstance(node, dict):
        if node.get("$ref", "").startswith("#/components/schemas/"):
            yield node["$ref"].rpartition("/")[2]
        yield from references_within(list(node.values()))


def requests_and_answers(document):
    """Return the component schemas of requests, and all others, by name."""
    bodies = [each["requestBody"] for _, each in operations(document) if "requestBody" in each]
    names = set(references_within(bodies))
    schemas = document["components"]["schemas"]
    requests = {name: schemas[name] for name in names}
    return requests, {name: each for name, each in schemas.items() if name not in names}


def is_valid(document, schema, value):
    root = {"components": document["components"], **schema}
    return OAS31Validator(root, format_checker=oas31_format_checker).is_valid(value)


def assert_valid(document, schema, value):
    root = {"components": document["components"], **schema}
    OAS31Validator(root, format_checker=oas31_format_checker).validate(value)


def assert_described(document, schema, value):
    """Assert that the value matches the schema, and has no undocumented member."""
    document, root = deepcopy(document), {"properties": {"value": deepcopy(schema)}}
    for each in [root, *document["components"]["schemas"].values()]:
        for inner in schemas_within(each):
            for member in members_of(inner).values():
                member["unevaluatedProperties"] = False
    assert_valid(document, root, {"value": value})


def shape(value):
    """Return the names, order and types of the members, which are the same in similar answers.

    The types of nullable members and the members of an event's detail are left out.
    """
    free = (
        "last_used_at", "last_used_from", "last_refused", "expires_at", "disabled_at",
        "scopes", "addresses", "detail",
    )  # fmt: skip
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
    documented = {name for name, _ in operations(document)}
    pages = {"/", "/openapi.json", "/llms.txt", "/llms-full.txt"}
    for rule in app.url_map.iter_rules():
        if rule.rule not in pages and not rule.rule.startswith("/docs"):
            for method in rule.methods - {"HEAD"}:
                path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
                assert f"{method.lower()} {path}" in documented


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


def test_every_string_of_a_request_has_a_pattern_and_every_number_its_limits(document):
    requests, answers = requests_and_answers(document)
    for schema in [*requests.values(), *answers.values()]:
        for each in schemas_within(schema):
            kinds = each.get("type", [])
            kinds = [kinds] if isinstance(kinds, str) else kinds
            if "string" in kinds and schema in requests.values():
                assert {"pattern", "enum", "const", "format"} & set(each), each
            if "integer" in kinds:
                assert {"minimum", "maximum"} <= set(each), each


def test_every_schema_and_every_field_has_a_description(document):
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name
        for each in schemas_within(schema):
            for field, described in each.get("properties", {}).items():
                assert described["description"], (name, field)


def test_every_parameter_has_a_description_and_a_valid_example(document):
    for name, operation in operations(document):
        path = name.split()[1]
        parameters = operation["parameters"] + document["paths"][path].get("parameters", [])
        for each in parameters:
            shared = each.get("$ref", "").rpartition("/")[2]
            parameter = document["components"]["parameters"][shared] if shared else each
            schema = parameter["schema"]
            assert parameter["description"], name
            # Swagger UI sends a parameter's own example, even if the parameter is optional
            assert parameter.get("required") or "example" not in parameter, name
            for example in schema.get("examples") or [parameter["example"]]:
                assert_valid(document, schema, example)


def test_requests_are_closed_and_answers_may_gain_members(document):
    requests, answers = requests_and_answers(document)
    for name in ("LeakReport", "ScannerFinding"):  # others define their members too
        assert requests.pop(name).get("additionalProperties", True) is True
    assert set(requests) == {"CredentialInput", "CredentialPatch", "CredentialUpdate", "Rotation"}
    for name, schema in requests.items():
        assert schema["additionalProperties"] is False, name
    for name, schema in answers.items():
        for each in schemas_within(schema):
            assert each.get("additionalProperties", True) is not False, name
            assert "unevaluatedProperties" not in each, name


def test_answers_may_gain_values(document):
    _, answers = requests_and_answers(document)
    for name, schema in answers.items():
        for each in schemas_within(schema):
            assert "enum" not in each, name
            # an event of another kind is an OtherEvent
            assert "const" not in each or name.endswith("Event"), name


def test_no_answer_has_a_pattern_nor_has_a_time(document):
    _, answers = requests_and_answers(document)
    found = [list(responses(document, each)) for _, each in operations(document)]
    assert '"pattern"' not in json.dumps([answers, found, document["components"]["headers"]])
    assert "pattern" not in document["components"]["schemas"]["RequestTime"]


def test_no_schema_is_named_like_a_constructor_of_another(document):
    # Go's constructor of Credential is NewCredential
    names = set(document["components"]["schemas"])
    assert not {f"New{name}" for name in names} & names


def test_a_field_that_schemas_share_is_described_once(document):
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        fields = fields_of(document, schema)
        assert len(set(fields)) == len(fields), name
    for name, expected in (
        ("IssuedCredential", ISSUED_FIELDS),
        ("DetailedCredential", DETAILED_FIELDS),
    ):
        base, own = schemas[name]["allOf"]
        assert base == {"$ref": "#/components/schemas/Credential"}
        assert set(own["properties"]) == set(expected) - set(FIELDS)


def test_every_time_refers_to_the_schema_of_requests_or_of_answers(document):
    schemas = document["components"]["schemas"]
    requests, answers = requests_and_answers(document)
    parameters = [each["parameters"] for _, each in operations(document)]
    assert set(references_within([requests, parameters])) == {"RequestTime"}
    assert "RequestTime" not in references_within(answers)
    del schemas["Timestamp"], schemas["RequestTime"]
    assert "date-time" not in json.dumps(document)


def test_every_response_documents_its_headers(document):
    needed = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
    for name, operation in operations(document):
        of_patch = {415: "Accept-Patch"} if name.startswith("patch ") else {}
        for status, response in responses(document, operation):
            assert "X-Request-Id" in response["headers"], (name, status)
            for header in filter(None, (needed.get(status), of_patch.get(status))):
                assert header in response["headers"], (name, status)
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
                assert_described(document, content["schema"], example["value"])


@pytest.mark.parametrize(
    ("operation_id", "statuses"),
    [
        ("listCredentials", {200, 400, 401, 403, 503}),
        ("issueCredential", {200, 400, 401, 403, 409, 413, 415, 422, 429, 503}),
        ("getCredential", {200, 400, 401, 403, 404, 503}),
        ("patchCredential", {204, 400, 401, 403, 404, 413, 415, 429, 503}),
        ("updateCredential", {204, 400, 401, 403, 404, 413, 415, 429, 503}),
        ("revokeCredential", {204, 400, 401, 403, 404, 409, 429, 503}),
        ("endClientSecret", {204, 400, 401, 403, 404, 409, 429, 503}),
        ("rotateCredential", {200, 400, 401, 403, 404, 409, 413, 415, 422, 429, 503}),
        ("listEvents", {200, 400, 401, 403, 404, 503}),
        ("listUnitEvents", {200, 400, 401, 403, 410, 503}),
        ("reportLeaks", {202, 400, 413, 415, 429, 503}),
        ("verify", {200, 401, 403, 429, 503}),
        ("verifyByPost", {200, 401, 403, 413, 429, 503}),
        ("verifyScope", {200, 401, 403, 404, 429, 503}),
        ("verifyScopeByPost", {200, 401, 403, 404, 413, 429, 503}),
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
    """The service's answers to all operations, with requests like the examples."""
    issued = member.post("/secrets", json={"name": "CRM backend"})
    path = f"/secrets/{issued.json['secret_id']}"
    patched = member.patch(path, json={"name": "y"})
    updated = member.put(path, json={"trust_upstream_consent": True, "name": "x"})
    rotated = member.post(f"{path}/rotate", json={"overlap_seconds": 86400})
    pair = basic(rotated.json["client_id"], rotated.json["client_secret"])
    return {
        "issueCredential": issued,
        "patchCredential": patched,
        "updateCredential": updated,
        "rotateCredential": rotated,
        "verify": member.get("/verify", headers=pair),
        "verifyByPost": member.post("/verify", headers=pair),
        "verifyScope": member.get("/verify/ingest", headers=pair),
        "verifyScopeByPost": member.post("/verify/ingest", headers=pair),
        "listCredentials": member.get("/secrets"),
        "getCredential": member.get(path),
        "listEvents": member.get(f"{path}/events"),
        "listUnitEvents": member.get("/secrets/events"),
        "reportLeaks": member.post("/leaks", json={"client_secret": "x"}),
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
        if answer.status_code in (202, 204):
            assert "content" not in documented
            continue
        if answer.mimetype == "text/plain":
            example = documented["content"]["text/plain"]["example"]
            described = {line for line in example.splitlines() if line.startswith("#")}
            assert described
            assert described <= set(answer.text.splitlines())
            continue
        content = documented["content"]["application/json"]
        assert_described(document, content["schema"], content["example"])
        assert_described(document, content["schema"], answer.json)
        assert shape(content["example"]) == shape(answer.json)


@pytest.fixture
def every_event(member, service):
    """The trail of a unit with events of every kind, and the trails of its credentials."""
    restrictions = {"scopes": ["ingest"], "addresses": ["2001:db8::/32", "192.0.2.1"]}
    new = {"name": "x", "expires_at": time_in(days=9), **restrictions}
    issued = member.post("/secrets", json=new).json
    path = f"/secrets/{issued['secret_id']}"
    member.patch(path, json={"scopes": None, "addresses": None})
    member.get("/verify", headers=basic(issued["client_id"], issued["client_secret"]))
    service.writer.flush()
    member.patch(path, json={"scopes": [], "addresses": ["192.0.2.0/24"]})
    member.put(path, json={"trust_upstream_consent": True, "name": "y"})
    member.put(path, json={"trust_upstream_consent": False})
    member.put(path, json={"trust_upstream_consent": False, "enabled": False})
    member.put(path, json={"trust_upstream_consent": False, "enabled": True})
    member.post(f"{path}/rotate", json={"expires_at": time_in(days=9)})
    member.delete(f"{path}/secrets/{issued['client_secret'][-4:]}")
    member.post(f"{path}/rotate", json={"overlap_seconds": 0})
    member.delete(path)
    other = member.post("/secrets", json={"name": "z"}).json
    leak = {"url": "https://example.com", "source": "content"}
    member.post("/leaks", json={"client_secret": other["client_secret"], **leak})
    for change_unit in (service.disable_all, service.enable_all, service.revoke_all):
        change_unit(caller())
    trails = [member.get(f"/secrets/{each['secret_id']}/events").json for each in (issued, other)]
    return member.get("/secrets/events").json, trails[0] + trails[1]


def test_every_member_of_every_kind_of_event_is_described(document, every_event):
    for name, events in zip(("UnitEvent", "AuditEvent"), every_event, strict=True):
        assert {each["event"] for each in events} == set(EVENT_NAMES)
        assert_described(document, {"items": {"$ref": f"#/components/schemas/{name}"}}, events)


def test_an_event_of_a_new_kind_or_with_a_new_member_matches_the_document(document, every_event):
    for name, events in zip(("UnitEvent", "AuditEvent"), every_event, strict=True):
        schema = {"$ref": f"#/components/schemas/{name}"}
        for event in events:
            grown = {**event, "detail": {**event["detail"], "new": [1]}, "new": None}
            assert is_valid(document, schema, grown)
            assert is_valid(document, schema, {**grown, "event": "archived"})
            assert not is_valid(document, schema, {**grown, "detail": None})


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
            assert answer.status_code in (200, 202, 204), name
            tried += 1
    assert tried == 5


@pytest.mark.parametrize(
    ("example", "query"), [("bad_limit", "limit=0"), ("bad_cursor", "cursor=x")]
)
def test_the_example_of_a_bad_parameter_is_what_the_service_answers(
    document, member, example, query
):
    content = document["paths"]["/secrets"]["get"]["responses"]["400"]["content"]
    examples = content["application/problem+json"]["examples"]
    assert examples[example]["value"] == member.get(f"/secrets?{query}").json


@pytest.mark.parametrize("path", ["/secrets", "/secrets/{secret_id}/events", "/secrets/events"])
def test_every_cursor_matches_its_schema(document, member, path):
    for name in ("one", "two"):
        issued = member.post("/secrets", json={"name": name}).json
    member.post(f"/secrets/{issued['secret_id']}/rotate")
    page = path.replace("{secret_id}", issued["secret_id"])
    link = member.get(f"{page}?limit=1&enabled=true&order=desc").headers["Link"]
    parameters = document["paths"][path]["get"]["parameters"]
    (schema,) = (each["schema"] for each in parameters if each.get("name") == "cursor")
    for cursor in (*re.findall("cursor=([^>&]+)", link.replace("%3D", "=")), "x", "x" * 100):
        assert_valid(document, schema, cursor)
    for other in ("", "x" * 101, "x.x", "x===", "=x"):
        assert not OAS31Validator(schema).is_valid(other), other


@pytest.mark.parametrize("actor", ["ada", "x" * 255, "x" * 256, "a\u202eb", "a\nb", ""])
def test_the_service_accepts_exactly_the_actors_that_match_the_document(document, member, actor):
    parameters = document["paths"]["/secrets/events"]["get"]["parameters"]
    [schema] = [each["schema"] for each in parameters if each.get("name") == "actor"]
    is_accepted = member.get("/secrets/events", query_string={"actor": actor}).status_code == 200
    assert is_accepted is is_valid(document, schema, actor)


@pytest.mark.parametrize(
    ("name", "is_valid_name"),
    [("CRM", True), (" CRM\n", True), ("x" * 50, True), ("\N{FOX FACE}" * 50, True),
     ("x" * 51, False), ("", False), (" ", False), ("a\x00b", False), ("a\u202eb", False)],
    ids=ascii,
)  # fmt: skip
def test_the_service_accepts_exactly_the_names_that_match_the_pattern(
    document, member, name, is_valid_name
):
    schema = document["components"]["schemas"]["CredentialInput"]
    assert OAS31Validator(schema).is_valid({"name": name}) is is_valid_name
    assert (member.post("/secrets", json={"name": name}).status_code == 200) is is_valid_name


def test_the_example_of_a_client_secret_ends_in_its_checksum(document):
    example = document["paths"]["/secrets"]["post"]["responses"]["200"]["content"]
    assert is_client_secret(example["application/json"]["example"]["client_secret"])
