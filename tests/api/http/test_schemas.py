from marshmallow import Schema


def test_no_schema_is_made_for_a_request(member, monkeypatch):
    """To make one copies all of its fields."""
    made = []
    initialize = Schema.__init__

    def initialize_and_record(schema, *arguments, **options):
        made.append(type(schema))
        initialize(schema, *arguments, **options)

    monkeypatch.setattr(Schema, "__init__", initialize_and_record)
    issued = member.post("/secrets", json={"name": "CRM backend"}).json
    path = f"/secrets/{issued['secret_id']}"
    assert member.get("/secrets?limit=5").status_code == 200
    assert member.get(f"{path}/events").status_code == 200
    assert member.put(path, json={"trust_upstream_consent": True}).status_code == 204
    assert member.post(f"{path}/rotate").status_code == 200
    assert member.delete(path).status_code == 204
    assert made == []
