"""The standard library's WSGI server, as the oracle: `python -m tests.server.wsgi_reference`,
with MODULE:APP if it is another than the tests' own.
"""

import importlib
import socketserver
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class Threading(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None: ...


if __name__ == "__main__":
    where, _, what = (sys.argv[1:] or ["tests.server.wsgi_apps:app"])[0].partition(":")
    app = getattr(importlib.import_module(where), what)
    with make_server("127.0.0.1", 0, app, Threading, Quiet) as server:
        print(f"serving on http://127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
        server.serve_forever()
