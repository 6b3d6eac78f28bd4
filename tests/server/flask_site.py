"""A Flask application: a page, an upload, a stream, a file, a session, errors."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, request, send_file, session, stream_with_context, url_for

app = Flask(__name__)
app.secret_key = "of the tests"


@app.get("/page/<name>")
def page(name: str) -> str:
    return f"{name} at {url_for('page', name=name)} of {request.host}, {request.args.get('q')}"


@app.post("/upload")
def upload() -> dict[str, Any]:
    file = request.files["file"]
    return {"name": file.filename, "digest": hashlib.sha256(file.read()).hexdigest()}


@app.post("/raw")
def raw() -> dict[str, Any]:
    return {"length": request.content_length, "size": len(request.get_data())}


@app.get("/stream")
def stream() -> Response:
    @stream_with_context
    def parts() -> Iterator[str]:
        for number in range(3):
            yield f"{request.path} {number}\n"

    return Response(parts(), mimetype="text/plain")


@app.get("/file")
def file() -> Response:
    return send_file(Path(__file__), mimetype="text/plain", conditional=True)


@app.get("/count")
def count() -> str:
    session["count"] = session.get("count", 0) + 1
    return str(session["count"])


@app.get("/teapot")
def teapot() -> str:
    abort(418)


@app.get("/error")
def error() -> str:
    raise RuntimeError("a view's failure")
