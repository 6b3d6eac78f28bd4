"""Views: `books` (forms and the database), `concurrency`, `streaming`, `pages`, `api`."""
