"""Mixed network traffic on one loop for a long time: `python -m tests.soak --help`."""
