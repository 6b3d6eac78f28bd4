"""JSON for programs: the books, and where this request runs."""

from django.http import HttpRequest, JsonResponse

from ..models import Book
from ..whereabouts import here
from .streaming import open_streams


async def books(request: HttpRequest) -> JsonResponse:
    """All books."""
    found = [
        {
            "slug": book.slug,
            "title": book.title,
            "title_zh": book.title_zh,
            "author": book.author.name,
            "year": book.year,
            "url": request.build_absolute_uri(book.get_absolute_url()),
        }
        async for book in Book.objects.select_related("author")
    ]
    return JsonResponse({"count": len(found), "books": found})


async def where(request: HttpRequest) -> JsonResponse:
    """The loop, the task and the thread of this request, and how many streams are open."""
    return JsonResponse({**here(request), "open_streams": open_streams()})
