"""The index, the page that says where it runs, and two views that fail on purpose."""

from typing import NamedTuple

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.urls import reverse

from ..ways import WAYS
from ..whereabouts import here


class Card(NamedTuple):
    """One link on the index page."""

    url: str
    kind: str
    title: str
    title_zh: str
    text: str
    text_zh: str


class Section(NamedTuple):
    """A group of links under one heading."""

    title: str
    title_zh: str
    cards: list[Card]


def _sections() -> list[Section]:
    """Everything that the site has to show."""
    return [
        Section(
            "Ways of concurrency", "并发的几种方式",
            [
                Card(
                    reverse("shelf:way", args=[way.slug]), "async",
                    way.title, way.title_zh, way.text, way.text_zh,
                )
                for way in WAYS.values()
            ],
        ),
        Section(
            "The bookshelf", "书架：数据库与表单",
            [
                Card(
                    reverse("shelf:books"), "sync",
                    "Books, sync view", "图书列表（同步视图）",
                    "An ordinary Django view. Each book has a form for notes: CSRF, session, "
                    "message.",
                    "普通的 Django 视图；每本书都可以写读书笔记。",
                ),
                Card(
                    reverse("shelf:books-async"), "async",
                    "Books, async view", "图书列表（异步视图）",
                    "The same page with aget() and async for.",
                    "同样的页面，用 aget() 和 async for 读取数据库。",
                ),
                Card(
                    reverse("shelf:guestbook"), "async",
                    "Guestbook", "留言簿",
                    "An async view that writes to the database with acreate().",
                    "异步视图，用 acreate() 写入数据库。",
                ),
                Card(
                    reverse("admin:index"), "sync",
                    "Admin", "管理后台",
                    "Django's admin with its own styles. Sign in as admin, password admin.",
                    "Django 自带的后台，用户名和密码都是 admin。",
                ),
            ],
        ),
        Section(
            "Piece by piece", "流式响应",
            [
                Card(
                    reverse("shelf:stream"), "stream",
                    "Ten lines", "逐行输出",
                    "An async generator; each line is sent as soon as it is made.",
                    "异步生成器，每产生一行就立即发送。",
                ),
                Card(
                    reverse("shelf:events"), "stream",
                    "Server-sent events", "服务器推送事件",
                    "A page that listens to a feed, with a few lines of JavaScript.",
                    "页面用几行 JavaScript 接收服务器推送的事件。",
                ),
            ],
        ),
        Section(
            "Under the hood", "幕后",
            [
                Card(
                    reverse("shelf:where"), "async",
                    "Where am I?", "我在哪里运行？",
                    "The loop, the task and the thread of this very request.",
                    "当前请求所在的事件循环、任务和线程。",
                ),
                Card(
                    reverse("shelf:upload"), "sync",
                    "Upload a file", "上传文件",
                    "Sends back the size and the SHA-256 of what arrived.",
                    "返回收到的文件的大小和 SHA-256。",
                ),
                Card(
                    reverse("shelf:api-books"), "async",
                    "JSON", "JSON 接口",
                    "All books for programs.",
                    "供程序读取的图书数据。",
                ),
                Card(
                    reverse("shelf:boom"), "sync",
                    "An error, on purpose", "故意出错",
                    "A view that raises. The traceback is in the server's log.",
                    "抛出异常的视图；错误信息会写入服务器日志。",
                ),
            ],
        ),
    ]  # fmt: skip


async def index(request: HttpRequest) -> HttpResponse:
    """Everything there is to see."""
    return render(request, "shelf/index.html", {"sections": _sections(), "facts": here(request)})


async def where(request: HttpRequest) -> HttpResponse:
    """Where async code of this request runs, and where sync code does."""
    in_async = here(request)
    in_sync = await sync_to_async(here)(request)
    rows = [(name, in_async.get(name), in_sync.get(name)) for name in in_async]
    return render(request, "shelf/where.html", {"rows": rows, "facts": in_async})


def favicon(request: HttpRequest) -> HttpResponse:
    """Browsers ask for this on pages, as the admin's, that name no icon."""
    return redirect(static("shelf/logo.svg"), permanent=True)


class DeliberateError(Exception):
    """Raised by the two views that show what happens when a view fails."""


def boom(request: HttpRequest) -> HttpResponse:
    """Fail in a sync view."""
    raise DeliberateError("This sync view fails on purpose.")


async def boom_async(request: HttpRequest) -> HttpResponse:
    """Fail in an async view."""
    raise DeliberateError("This async view fails on purpose.")
