"""The embedded sample: a real stress day restated under ``examples/``, and books generated from a seed."""
