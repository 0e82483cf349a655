"""`make drill`: break things on purpose around the running service."""
