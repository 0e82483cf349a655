"""Schemas of requests and responses, which also describe them in the OpenAPI document."""
