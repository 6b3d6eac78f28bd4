#!/usr/bin/env python
"""Django's command line for the demo site: migrate, seed, check, test."""

import os
import sys


def main() -> None:
    """Run one management command of this project."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_project.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError as error:
        raise SystemExit(
            f"Django cannot be imported ({error}): "
            "run 'pip install -r requirements.txt' in this environment first."
        ) from error
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
