"""Authors, their books, readers' notes on a book, and the guestbook.

Titles and names are kept in English and in Chinese; both are required, so that no template has to
ask which of them is there.
"""

from django.core.validators import MaxValueValidator
from django.db import models
from django.urls import reverse


class Author(models.Model):
    """Who wrote the books."""

    name = models.CharField(max_length=100, unique=True)
    name_zh = models.CharField("name in Chinese", max_length=100)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return f"{self.name} · {self.name_zh}"


class Book(models.Model):
    """One book on the shelf."""

    slug = models.SlugField(unique=True)
    title = models.CharField(max_length=200)
    title_zh = models.CharField("title in Chinese", max_length=200)
    author = models.ForeignKey(Author, on_delete=models.PROTECT, related_name="books")
    year = models.PositiveSmallIntegerField()
    summary = models.TextField()
    hue = models.PositiveSmallIntegerField(
        "colour of the cover",
        help_text="Degrees on the colour wheel, 0 to 359.",
        validators=[MaxValueValidator(359)],
    )

    class Meta:
        ordering = ["year", "title"]

    def __str__(self) -> str:
        return f"{self.title} · {self.title_zh}"

    def get_absolute_url(self) -> str:
        """The page of this book."""
        return reverse("shelf:book", args=[self.slug])


class Note(models.Model):
    """What a reader wrote about a book."""

    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="notes")
    reader = models.CharField(max_length=60)
    text = models.TextField(max_length=1000)
    written_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-written_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.reader} on {self.book.title}"


class Greeting(models.Model):
    """One line in the guestbook."""

    name = models.CharField(max_length=60)
    text = models.CharField(max_length=280)
    written_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-written_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"
