"""The programs of a beginner's tutorial on asyncio, unchanged, under `python` and `rondel run`."""
