"""The measured views. Sync and async ones of a pair do the same work and give the same bytes.

Invariant: every answer has a Content-Length (the load generator checks it).  CommonMiddleware sets
it; the minimal views, which run without middleware, set it themselves.
"""

from __future__ import annotations

import asyncio

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from .models import Book

HELLO = b"Hello, World!"


def hello() -> HttpResponse:
    return HttpResponse(
        HELLO, content_type="text/plain", headers={"Content-Length": str(len(HELLO))}
    )


def minimal_sync(request: HttpRequest) -> HttpResponse:
    return hello()


async def minimal_async(request: HttpRequest) -> HttpResponse:
    return hello()


def as_json(*books: Book) -> JsonResponse:
    rows = [{"title": book.title, "author": book.author, "year": book.year} for book in books]
    return JsonResponse({"books": rows})


def query_sync(request: HttpRequest) -> HttpResponse:
    return as_json(Book.objects.get(pk=1))


async def query_async(request: HttpRequest) -> HttpResponse:
    return as_json(await Book.objects.aget(pk=1))


def three_sync(request: HttpRequest) -> HttpResponse:
    return as_json(*(Book.objects.get(pk=pk) for pk in (1, 2, 3)))


async def three_async(request: HttpRequest) -> HttpResponse:
    return as_json(*await asyncio.gather(*(Book.objects.aget(pk=pk) for pk in (1, 2, 3))))


@login_required
def page(request: HttpRequest) -> HttpResponse:
    """Three queries: the session, the user, the books."""
    books = Book.objects.filter(year__gte=1900)
    return render(request, "shop/page.html", {"books": books, "theme": request.session["theme"]})
