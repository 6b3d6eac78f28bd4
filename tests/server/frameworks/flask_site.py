"""Flask, which speaks WSGI."""

import threading
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, redirect, request, send_file
from werkzeug.wrappers import Response as Answer

from tests.server.frameworks import FILE, Sum, described, lines

app = Flask(__name__)
go = threading.Event()


@app.get("/page/<name>")
def page(name: str) -> Response:
    return Response(f"{name} {request.args.get('q')}", mimetype="text/plain")


@app.get("/away")
def away() -> Answer:
    return redirect("/page/x?q=redirected")


@app.post("/upload")
def upload() -> dict[str, Any]:
    file = request.files["file"]
    return described(request.form["title"], file.filename, file.content_type, file.read())


@app.post("/raw")
def raw() -> dict[str, Any]:
    got = Sum()
    while part := request.stream.read(65536):
        got.add(part)
    return got.told()


@app.get("/stream")
def stream() -> Response:
    def parts() -> Iterator[str]:
        for part in lines():
            yield part
            assert go.wait(60)

    return Response(parts(), mimetype="text/plain")


@app.get("/go")
def release() -> Response:
    go.set()
    return Response(status=204)


@app.get("/file")
def file() -> Response:
    return send_file(FILE, as_attachment=True, download_name="né.py", conditional=True)


@app.get("/cookies")
def cookies() -> Response:
    count = request.cookies.get("count", "0")
    response = Response(count, mimetype="text/plain")
    response.set_cookie("count", str(int(count) + 1))
    response.set_cookie("other", "b", httponly=True)
    return response


@app.get("/error")
def error() -> str:
    raise RuntimeError("a handler's failure")
