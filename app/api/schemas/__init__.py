"""Schemas of requests and answers, which also describe them in the OpenAPI document."""
