"""`credentials`: the command line for operators."""
