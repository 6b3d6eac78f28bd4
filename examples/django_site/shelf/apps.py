"""App configuration."""

from django.apps import AppConfig


class ShelfConfig(AppConfig):
    """The bookshelf."""

    name = "shelf"
    verbose_name = "Bookshelf · 书架"
    default_auto_field = "django.db.models.BigAutoField"
