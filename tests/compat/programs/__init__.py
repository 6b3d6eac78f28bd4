"""One file per program: a small real exchange each. Run by `python -m tests.compat`, in an
environment that has the programs; the ordinary test run does not collect these files.
"""
