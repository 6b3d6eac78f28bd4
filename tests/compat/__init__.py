"""Real programs from PyPI on Rondel's loop: `python -m tests.compat`, see docs/compat.md."""
