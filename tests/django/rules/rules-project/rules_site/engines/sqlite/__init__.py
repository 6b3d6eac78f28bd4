"""Django's engine for SQLite, reporting."""
