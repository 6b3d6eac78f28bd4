"""Schema of the shelf, step by step."""
