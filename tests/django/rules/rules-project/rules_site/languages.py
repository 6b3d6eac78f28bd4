"""A URLconf whose paths differ by language: a prefix, and a route that is translated."""

from django.conf.urls.i18n import i18n_patterns
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import path
from django.utils.functional import lazy
from django.utils.translation import get_language

from rules_site.events import here
from rules_site.urls import urlpatterns as plain


def _book(prefix: str) -> str:
    return prefix + ("buch/" if get_language() == "de" else "book/")


book = lazy(_book, str)


def language_sync(request: HttpRequest) -> HttpResponseBase:
    """What the view finds active."""
    return JsonResponse({"language": get_language(), **here()})


async def language_async(request: HttpRequest) -> HttpResponseBase:
    """The same on the loop."""
    return JsonResponse({"language": get_language(), **here()})


urlpatterns = [
    *plain,
    # As `gettext_lazy` makes them.
    path(book("sync/"), language_sync),
    path(book("async/"), language_async),
    *i18n_patterns(
        path("language/sync/", language_sync),
        path("language/async/", language_async),
    ),
]
