"""Measurements: ``python -m benchmarks --help``. Not installed with the package."""
