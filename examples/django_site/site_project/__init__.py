"""The demo project: settings, URLs and the two server entry points."""
