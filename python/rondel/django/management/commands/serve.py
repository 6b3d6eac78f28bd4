"""`manage.py serve`: ASGI_APPLICATION in production, with the options of `rondel serve`.

What a Django project adds to `rondel serve`: the application comes from the settings, system checks
run first, and DEBUG is refused, as its error pages show the project's code and settings to
everybody. Exit statuses and signals are those of `rondel serve`.
"""

import os
import sys
import traceback
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from rondel.cli.serve import add_options, config_of
from rondel.django.checks import (
    asgi_application_name,
    debug_while_serving,
    missing_asgi_hint,
    persistent_connections,
)
from rondel.django.management import target_of
from rondel.server.errors import ServeError, TargetImportError
from rondel.server.target import Application

__all__ = ["Command"]


class Command(BaseCommand):
    """Serves the project until SIGINT or SIGTERM."""

    help = "Serves ASGI_APPLICATION on Rondel, for production; static files by --static."
    # They run in `handle`, which may add those of `check --deploy`.
    requires_system_checks = ()

    # Set by Django when the command line is what runs the command.
    _called_from_command_line: bool

    def add_arguments(self, parser: CommandParser) -> None:
        """The options of `rondel serve`, and those about Django."""
        add_options(parser)
        add = parser.add_argument_group("Django").add_argument
        add("--allow-debug", action="store_true", help="serve although DEBUG is on")
        add("--deploy", action="store_true", help='run the checks of "check --deploy" as well')
        add("--skip-checks", action="store_true", help="skip system checks")

    def handle(self, *args: Any, **options: Any) -> None:
        """Check, then serve; everything that keeps it from serving is a CommandError."""
        name = asgi_application_name()
        if name is None:
            raise CommandError(f"ASGI_APPLICATION is not set. {missing_asgi_hint()}")
        self._refuse_debug(allowed=options["allow_debug"])
        if not settings.DEBUG and not settings.ALLOWED_HOSTS:
            # Every request would be answered with 400.
            raise CommandError("You must set settings.ALLOWED_HOSTS if DEBUG is False.")
        if not options["skip_checks"]:
            self.check(include_deployment_checks=options["deploy"])
        if options["bridge"] is False:
            for message in persistent_connections():
                self._warn(message)
        connections.close_all()
        try:
            status = self._serve(name, options)
        except TargetImportError as error:
            # The project's own error: its traceback is useful, ours is not.
            if error.__cause__ is not None:
                traceback.print_exception(error.__cause__)
            raise CommandError(str(error), returncode=error.exit_status) from None
        except ServeError as error:
            raise CommandError(str(error), returncode=error.exit_status) from None
        except KeyboardInterrupt:
            raise CommandError("interrupted", returncode=130) from None
        if self._called_from_command_line:
            from rondel.server.process import end_process

            end_process(status)
        if status:
            sys.exit(status)

    def _serve(self, name: str, options: dict[str, Any]) -> int:
        import rondel
        from rondel.server.process import leave_soon, run_process

        config = config_of(options, name)
        if config.is_supervised:
            from rondel.server.supervisor import supervise

            return supervise(Application(target_of(name), directory=os.getcwd()), config)
        # This process is ours: libraries of the application get the native names too.
        rondel.install(bridge=config.bridge)
        stopped = leave_soon if self._called_from_command_line else None
        return run_process(target_of(name), config, stopped=stopped)

    def _refuse_debug(self, *, allowed: bool) -> None:
        for message in debug_while_serving():
            if not allowed:
                raise CommandError(
                    f"({message.id}) {message.msg} {message.hint} "
                    "--allow-debug serves all the same."
                )
            self._warn(message)

    def _warn(self, message: CheckMessage) -> None:
        self.stderr.write(self.style.WARNING(f"WARNING: ({message.id}) {message.msg}"))
