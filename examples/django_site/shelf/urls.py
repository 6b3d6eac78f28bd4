"""URLs of the bookshelf."""

from django.urls import path

from .views import api, books, concurrency, pages, streaming

app_name = "shelf"

urlpatterns = [
    path("", pages.index, name="index"),
    path("where/", pages.where, name="where"),
    path("favicon.ico", pages.favicon, name="favicon"),
    # Ordinary synchronous views.
    path("books/", books.book_list, name="books"),
    path("books/<slug:slug>/", books.book_detail, name="book"),
    path("upload/", books.upload, name="upload"),
    # The same in async views.
    path("async/books/", books.book_list_async, name="books-async"),
    path("async/books/<slug:slug>/", books.book_detail_async, name="book-async"),
    path("guestbook/", books.guestbook, name="guestbook"),
    # One page per way of concurrency.
    path("ways/<slug:slug>/", concurrency.way, name="way"),
    # Responses that arrive piece by piece.
    path("stream/", streaming.lines, name="stream"),
    path("events/", streaming.events_page, name="events"),
    path("events/feed/", streaming.events_feed, name="events-feed"),
    # For programs.
    path("api/books/", api.books, name="api-books"),
    path("api/where/", api.where, name="api-where"),
    # Errors, on purpose.
    path("errors/sync/", pages.boom, name="boom"),
    path("errors/async/", pages.boom_async, name="boom-async"),
]
