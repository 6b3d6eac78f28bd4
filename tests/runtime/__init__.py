"""The loop, futures, tasks and everything built of them, on asyncio and on Rondel."""
