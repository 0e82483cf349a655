"""The OpenAPI document: what its operations share, and its examples."""
