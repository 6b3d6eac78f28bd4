"""`rondel serve --workers`: the supervisor, its workers and the template, as real processes."""
