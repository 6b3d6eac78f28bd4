"""Rondel against test suites that its authors did not write; README.md tells how and why."""
