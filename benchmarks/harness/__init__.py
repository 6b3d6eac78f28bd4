"""The machinery of `benchmarks/run.py`; the measured code itself lives one level up."""
