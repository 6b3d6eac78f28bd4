"""Exceptions that views and middleware raise on purpose, and the project's error handlers."""

from typing import Any

from django.http import HttpRequest, JsonResponse

from rules_site.events import here


class DeliberateError(Exception):
    """Asked for by the request."""


class DeliberateExit(BaseException):
    """An exception that Django does not turn into a response."""


def bad_request(request: HttpRequest, exception: Any) -> JsonResponse:
    """handler400."""
    return JsonResponse({"handler": 400, "exception": type(exception).__name__}, status=400)


def denied(request: HttpRequest, exception: Any) -> JsonResponse:
    """handler403."""
    return JsonResponse({"handler": 403, "exception": type(exception).__name__}, status=403)


def not_found(request: HttpRequest, exception: Any) -> JsonResponse:
    """handler404."""
    return JsonResponse({"handler": 404, "path": request.path, **here()}, status=404)


def server_error(request: HttpRequest) -> JsonResponse:
    """handler500."""
    return JsonResponse({"handler": 500, **here()}, status=500)
