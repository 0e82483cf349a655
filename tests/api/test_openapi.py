import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json


def operations(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield f"{method} {path}", operation


def test_the_document_is_valid_openapi_3_1(document):
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


def test_the_document_has_both_security_schemes(document):
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearerAuth"]["scheme"] == "bearer"
    assert schemes["basicAuth"]["scheme"] == "basic"


def test_the_document_describes_every_route_of_the_api(app, document):
    undocumented = {"/openapi.json", "/docs"}
    rules = [rule for rule in app.url_map.iter_rules() if "<" not in rule.rule]
    expected = {
        f"{method.lower()} {rule.rule}"
        for rule in rules
        for method in rule.methods - {"HEAD"}
        if rule.rule not in undocumented
    }
    assert expected <= {name for name, _ in operations(document)}


def test_every_operation_has_a_title_a_description_and_an_identifier(document):
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["operationId"], name


@pytest.mark.parametrize(
    ("method", "statuses"),
    [("get", {"200", "400", "401", "403", "503"}),
     ("post", {"200", "400", "401", "403", "413", "415", "503"})],
)  # fmt: skip
def test_every_error_of_an_operation_is_a_documented_problem(document, method, statuses):
    responses = document["paths"]["/secrets"][method]["responses"]
    assert set(responses) == statuses
    for status in statuses - {"200"}:
        response = responses[status]
        if "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        content = response["content"]["application/problem+json"]
        assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
        for example in content["examples"].values():
            assert example["value"]["status"] == int(status)


def test_the_operations_on_credentials_take_a_bearer_token(document):
    for method in ("get", "post"):
        assert document["paths"]["/secrets"][method]["security"] == [{"bearerAuth": []}]


def test_a_documented_shape_has_the_contracts_fields_in_order(document, member):
    schemas = document["components"]["schemas"]
    issued = member.post("/secrets", json={"name": "x"}).json
    (listed,) = member.get("/secrets").json
    assert list(schemas["IssuedCredential"]["properties"]) == list(issued)
    assert list(schemas["Credential"]["properties"]) == list(listed)


def test_the_page_loads_its_own_files_and_no_others(client):
    page = client.get("/docs")
    assert page.status_code == 200
    assert "//" not in page.text.replace("<!DOCTYPE html>", "")
    paths = [part.split('"')[0] for part in page.text.split('src="')[1:]]
    paths += [part.split('"')[0] for part in page.text.split('href="')[1:]]
    assert len(paths) == 4
    for path in paths:
        with client.get(path) as answer:
            assert answer.status_code == 200, path


def test_the_page_may_run_no_script_but_its_own_files(client):
    policy = client.get("/docs").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
