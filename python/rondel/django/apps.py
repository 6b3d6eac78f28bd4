"""The Django application `rondel.django`.

Its label is `rondel`: the default, the last part of the name, would read as Django itself.
"""

from django.apps import AppConfig
from django.core.checks import register

__all__ = ["RondelConfig"]


class RondelConfig(AppConfig):
    """Registers the system checks; the commands are found by Django."""

    name = "rondel.django"
    label = "rondel"
    verbose_name = "Rondel"

    def ready(self) -> None:
        """Register what `manage.py check`, `runserver` and `serve` report."""
        from rondel.django import checks

        for check in checks.REGISTERED:
            register(check, checks.TAG)
