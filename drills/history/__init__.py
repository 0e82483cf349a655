"""A history checker: random operations under faults, and what must hold of their history.

The models are Elle, Knossos and Porcupine. None of them has a counterpart on PyPI.
"""
