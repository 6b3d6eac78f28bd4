"""`manage.py runserver` on Rondel: Django's command, with another server under it.

The command of staticfiles where that app is installed, of core otherwise: options, checks, banner,
autoreload and error messages are Django's. What differs: ASGI_APPLICATION is served if it is set;
`--wsgi` (and a project without ASGI_APPLICATION) gets Django's own server, unchanged: Rondel's
server for WSGI (`rondel serve`) is for production.
"""

import asyncio
import functools
import os
import sys
from io import StringIO
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandParser, OutputWrapper
from django.utils import autoreload

from rondel._runners import Runner
from rondel.django.checks import asgi_application_name
from rondel.django.management import load_application
from rondel.django.management.development import (
    GRACE,
    DevelopmentServer,
    Stop,
    leave_now,
    leave_within,
    patience,
)
from rondel.server.errors import ServeError

if TYPE_CHECKING or apps.is_installed("django.contrib.staticfiles"):
    from django.contrib.staticfiles.management.commands.runserver import Command as DjangoCommand
else:
    from django.core.management.commands.runserver import Command as DjangoCommand

__all__ = ["Command"]


class Command(DjangoCommand):
    """Starts the development server."""

    help = "Starts a web server for development: Rondel, for ASGI_APPLICATION."

    # Set by Django when the command line is what runs the command.
    _called_from_command_line: bool
    # How to end Rondel's server; None while Django's own is at work.
    _stop: Stop | None = None
    _runner: asyncio.Runner

    def add_arguments(self, parser: CommandParser) -> None:
        """Django's options and the switch between the two interfaces."""
        super().add_arguments(parser)
        parser.add_argument(
            "--wsgi",
            "--noasgi",
            action="store_true",
            dest="use_wsgi",
            help="Serves WSGI_APPLICATION by Django's own development server.",
        )

    def run(self, **options: Any) -> None:
        """Run the server, under Django's autoreloader if it is wanted."""
        in_parent = options["use_reloader"] and not _is_reloaders_child()
        if not self._serves_asgi(options):
            if not in_parent:
                self.stdout.write("WSGI: Django's own development server.\n")
            super().run(**options)
            return
        # A reloader's child is ours even if a command of the project's called this one.
        owned = self._called_from_command_line or options["use_reloader"]
        self._stop = Stop(owns_process=owned)
        if in_parent:
            with patience():
                super().run(**options)
            return
        status = 0
        try:
            super().run(**options)
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
            raise
        finally:
            self._end(status)

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Check, bind and serve: on the thread that the reloader made, or on the main one."""
        if not self._serves_asgi(options):
            super().inner_run(*args, **options)
            return
        import rondel
        from rondel.server import logs

        assert self._stop is not None
        self._stop.enter_thread()
        # This process is ours, as under `rondel serve`: libraries get the native names too.
        rondel.install()
        logs.configure("warning", access=False)
        try:
            with Runner() as runner:
                # Current while the application is imported: asyncio.get_event_loop() finds it.
                runner.get_loop()
                self._runner = runner
                # Django's own threads are for its own server, which this one replaces.
                super().inner_run(*args, **{**options, "use_threading": False})
        except ServeError as error:
            self.stderr.write(f"Error: {error}")
            if not options["use_reloader"]:
                sys.exit(error.exit_status)
            # The reloader goes on watching: the next change may mend it.

    def get_handler(self, *args: Any, **options: Any) -> Any:
        """The application, behind the static files as Django's command puts them in front."""
        if not self._serves_asgi(options):
            return super().get_handler(*args, **options)
        name, stop = asgi_application_name(), self._stop
        assert name is not None and stop is not None
        app = load_application(name)
        # An instance's attribute hides the class's, which Django's command would use.
        self.server_cls = functools.partial(  # type: ignore[assignment]
            DevelopmentServer, runner=self._runner, stop=stop, name=name
        )
        # Without staticfiles the options are not there.
        if not options.get("use_static_handler", False):
            return app
        if not (settings.DEBUG or options["insecure_serving"]):
            return app
        from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

        from rondel.server.threads import with_static

        # Any ASGI application will do, whatever the stubs say.
        return with_static(ASGIStaticFilesHandler(app))[0]  # type: ignore[arg-type]

    def on_bind(self, server_port: int) -> None:
        """Django's banner, and who serves."""
        if self._stop is None:
            super().on_bind(server_port)
            return
        import rondel

        stdout, text = self.stdout, StringIO()
        self.stdout = OutputWrapper(text)
        try:
            super().on_bind(server_port)
        finally:
            self.stdout = stdout
        # From 6.1 on Django says which interface its own server has.
        banner = text.getvalue().replace("Starting WSGI development", "Starting ASGI development")
        self.stdout.write(banner, ending="")
        self.stdout.write(f"ASGI: Rondel {rondel.__version__}, {asgi_application_name()}\n")

    def _serves_asgi(self, options: dict[str, Any]) -> bool:
        return asgi_application_name() is not None and not options.get("use_wsgi", False)

    def _end(self, status: int) -> None:
        """Wait for the server's end, but not for ever."""
        stop = self._stop
        assert stop is not None
        if stop.owns_process:
            leave_within(GRACE, status)
        stop.ask()
        try:
            stop.join()
        except KeyboardInterrupt:
            # Impatience. The interpreter must not go away under the server's thread.
            leave_now(status)


def _is_reloaders_child() -> bool:
    return os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true"
