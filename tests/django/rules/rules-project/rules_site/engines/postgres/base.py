"""The module that Django looks for."""

from django.db.backends.postgresql import base

from rules_site.engines.reporting import Reporting


class DatabaseWrapper(Reporting, base.DatabaseWrapper):
    """Django's own, reporting."""
