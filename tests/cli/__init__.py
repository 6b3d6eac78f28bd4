"""The `rondel` command as real processes; `rondel run` is compared with `python` itself."""
