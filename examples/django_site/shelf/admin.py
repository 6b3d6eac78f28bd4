"""The admin: search, filters, and a book's notes on the book's own page."""

from django.contrib import admin

from .models import Author, Book, Greeting, Note


class NoteInline(admin.TabularInline):
    """A book's notes, edited together with the book."""

    model = Note
    extra = 0
    readonly_fields = ["written_at"]


@admin.register(Author)
class AuthorAdmin(admin.ModelAdmin):
    """Authors."""

    list_display = ["name", "name_zh"]
    search_fields = ["name", "name_zh"]


@admin.register(Book)
class BookAdmin(admin.ModelAdmin):
    """Books, with their notes."""

    list_display = ["title", "title_zh", "author", "year"]
    list_filter = ["author"]
    list_select_related = ["author"]
    search_fields = ["title", "title_zh", "author__name", "author__name_zh"]
    prepopulated_fields = {"slug": ["title"]}
    inlines = [NoteInline]


@admin.register(Note)
class NoteAdmin(admin.ModelAdmin):
    """Notes of all books."""

    list_display = ["reader", "book", "written_at"]
    list_select_related = ["book"]
    search_fields = ["reader", "text", "book__title"]


@admin.register(Greeting)
class GreetingAdmin(admin.ModelAdmin):
    """The guestbook."""

    list_display = ["name", "text", "written_at"]
    search_fields = ["name", "text"]
