"""Other projects' own test suites with Rondel installed; README.md tells how and why."""
