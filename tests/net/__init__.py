"""TCP, streams and descriptor watching, on asyncio and on Rondel."""
