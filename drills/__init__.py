"""What is broken on purpose, against the running service: `make drill`."""
