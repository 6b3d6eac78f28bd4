"""The benchmark of Django: one project (`benchmarks/django`), Rondel and the servers people use."""
