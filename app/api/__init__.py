"""The HTTP layer, kept thin: a module for each resource, and packages for what they share."""
