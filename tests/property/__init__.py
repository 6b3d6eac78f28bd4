"""Random trees of tasks under a virtual clock: asyncio and Rondel must leave the same trace.

`programs` draws a program as plain data, `interpreter` runs it on either runtime and notes what
happens, `compare` holds the two against each other and reduces a program on which they differ,
`python -m tests.property` runs as many as are wanted and says how to repeat what it finds.
"""
