"""asgiref's bridge on native threads, and the pool that they come from."""
