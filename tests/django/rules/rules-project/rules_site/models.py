"""What the database tests store."""

from django.db import models


class Entry(models.Model):
    """A name, written by a request."""

    name: "models.CharField[str, str]" = models.CharField(max_length=80)

    def __str__(self) -> str:
        return self.name
