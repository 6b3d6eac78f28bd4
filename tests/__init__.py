"""Rondel's test suites; `conftest.py` says how a test meets the runtimes."""
