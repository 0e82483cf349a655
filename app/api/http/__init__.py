"""Rules for all endpoints: requests, input, problems, pagination."""
