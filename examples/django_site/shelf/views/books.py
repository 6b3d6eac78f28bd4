"""The shelf: the same list and detail page in sync and in async views, forms, an upload.

A template that is rendered in an async view may not touch the database, so those views load all
that their template reads before they render.
"""

import hashlib
import logging

from django.contrib import messages
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render

from ..forms import GreetingForm, NoteForm, UploadForm
from ..models import Book, Greeting

logger = logging.getLogger(__name__)

GREETINGS_SHOWN = 20


def book_list(request: HttpRequest) -> HttpResponse:
    """All books, or those whose title or author holds `?q=`: an ordinary sync view."""
    books = Book.objects.select_related("author").annotate(note_count=Count("notes"))
    query = request.GET.get("q", "").strip()
    if query:
        books = books.filter(title__icontains=query) | books.filter(title_zh__icontains=query)
    return render(
        request,
        "shelf/book_list.html",
        {"books": list(books), "query": query, "view_kind": "sync", "book_url": "shelf:book"},
    )


async def book_list_async(request: HttpRequest) -> HttpResponse:
    """The same page from an async view, reading the rows with `async for`."""
    query = request.GET.get("q", "").strip()
    books = Book.objects.select_related("author").annotate(note_count=Count("notes"))
    if query:
        books = books.filter(title__icontains=query) | books.filter(title_zh__icontains=query)
    found = [book async for book in books]
    return render(
        request,
        "shelf/book_list.html",
        {
            "books": found,
            "query": query,
            "view_kind": "async",
            "book_url": "shelf:book-async",
        },
    )


def book_detail(request: HttpRequest, slug: str) -> HttpResponse:
    """One book and its notes; POST adds a note and remembers the reader in the session."""
    book = get_object_or_404(Book.objects.select_related("author"), slug=slug)
    if request.method == "POST":
        form = NoteForm(request.POST)
        if form.is_valid():
            note = form.save(commit=False)
            note.book = book
            note.save()
            request.session["reader"] = note.reader
            logger.info("%s wrote a note on %s", note.reader, book.slug)
            messages.success(request, f"Thank you, {note.reader}. 已保存。")
            return redirect(book)
    else:
        form = NoteForm(initial={"reader": request.session.get("reader", "")})
    return render(
        request,
        "shelf/book_detail.html",
        {"book": book, "notes": list(book.notes.all()), "form": form, "view_kind": "sync"},
    )


async def book_detail_async(request: HttpRequest, slug: str) -> HttpResponse:
    """One book and its notes from an async view, with `aget` and `async for`."""
    try:
        book = await Book.objects.select_related("author").aget(slug=slug)
    except Book.DoesNotExist as error:
        raise Http404(f"There is no book {slug!r}.") from error
    notes = [note async for note in book.notes.all()]
    return render(
        request,
        "shelf/book_detail.html",
        {"book": book, "notes": notes, "view_kind": "async"},
    )


async def guestbook(request: HttpRequest) -> HttpResponse:
    """The guestbook: an async view that reads with `async for` and writes with `acreate`."""
    form = GreetingForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        greeting = await Greeting.objects.acreate(**form.cleaned_data)
        logger.info("%s signed the guestbook", greeting.name)
        messages.success(request, f"Thank you, {greeting.name}. 谢谢留言。")
        return redirect("shelf:guestbook")
    greetings = [greeting async for greeting in Greeting.objects.all()[:GREETINGS_SHOWN]]
    return render(request, "shelf/guestbook.html", {"form": form, "greetings": greetings})


def upload(request: HttpRequest) -> HttpResponse:
    """Take a file and say what arrived: its name, size and SHA-256, as a page or as JSON."""
    form = UploadForm(request.POST or None, request.FILES or None)
    received = None
    if request.method == "POST" and form.is_valid():
        file = form.cleaned_data["file"]
        digest = hashlib.sha256()
        for chunk in file.chunks():
            digest.update(chunk)
        received = {
            "name": file.name,
            "size": file.size,
            "content_type": file.content_type,
            "sha256": digest.hexdigest(),
        }
    if request.GET.get("format") == "json":
        if received is None:
            return JsonResponse({"errors": form.errors}, status=400)
        return JsonResponse(received)
    return render(request, "shelf/upload.html", {"form": form, "received": received})
