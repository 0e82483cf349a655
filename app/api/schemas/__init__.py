"""What comes in and what goes out, described for the OpenAPI document."""
