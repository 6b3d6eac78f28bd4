"""The project's only app; its start connects the receivers."""

from django.apps import AppConfig


class RulesConfig(AppConfig):
    """Models and receivers."""

    name = "rules_site"

    def ready(self) -> None:
        """Connect the receivers before the first request."""
        from rules_site import receivers

        receivers.connect()
