"""Django's engine for PostgreSQL, reporting."""
