"""What `make run`, `make token` and the tests need and production never imports."""
