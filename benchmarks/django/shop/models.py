"""One table; the views read it only."""

from django.db import models


class Book(models.Model):
    title = models.CharField(max_length=200)
    author = models.CharField(max_length=200)
    year = models.IntegerField()

    class Meta:
        ordering = ("title",)

    def __str__(self) -> str:
        return self.title
