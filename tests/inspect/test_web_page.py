"""The inspector's page in a headless Chromium: what it shows, by mouse and keys, and whom it asks.

The program is `busy`; what only a server tells is answered by `fake`.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import environment
from tests.clients.browser import PATIENCE, Browser, browser
from tests.inspect import busy
from tests.inspect.web_support import ROOT, Web, inspected

pytestmark = pytest.mark.timeout(4 * PATIENCE)

VIEWS = ["Tasks", "Timeline", "Loops", "Requests", "Stalls"]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("run")
    with inspected(folder, "run", "--inspect", "0", "-m", "tests.inspect.busy") as one:
        yield one


@pytest.fixture
def page(chromium: Browser, web: Web) -> Iterator[Browser]:
    """The page, freshly loaded, with its tasks; nothing may have gone wrong in it at the end."""
    opened(chromium, web)
    chromium.until("document.querySelectorAll('.task').length > 4")
    yield chromium
    assert chromium.complaints == []


def opened(chromium: Browser, web: Web, view: str = "") -> None:
    chromium.size(1280, 800)
    chromium.scheme("light")
    chromium.open("about:blank")
    chromium.requests.clear()
    chromium.complaints.clear()
    chromium.open(f"{web.url}{view}")
    chromium.until("document.querySelectorAll('[role=tab]').length === 5")


def rows(page: Browser) -> list[str]:
    shown = page.run("[...document.querySelectorAll('.task')].map(row => row.innerText)")
    assert isinstance(shown, list)
    return shown


def row_of(name: str) -> str:
    """An expression: the row that has this text."""
    has = f"row => row.innerText.includes({json.dumps(name)})"
    return f"[...document.querySelectorAll('.task')].find({has})"


def test_tasks_that_wait_alike_are_one_row(page: Browser) -> None:
    page.until(f"{row_of('300 ×')} !== undefined")
    crowd = page.run(f"{row_of('300 ×')}.innerText")
    assert "worker" in crowd
    assert "busy.py:14 → Queue.get" in " ".join(crowd.split())
    assert len(rows(page)) < 15


def test_the_tree_is_by_creators(page: Browser) -> None:
    assert page.run(f"{row_of('300 ×')}.getAttribute('aria-level')") == "2"
    page.until(f"{row_of('child')} !== undefined")
    assert page.run(f"{row_of('child')}.getAttribute('aria-level')") == "3"


def test_a_name_that_looks_like_markup_is_text(page: Browser) -> None:
    page.until(f"{row_of(busy.MARKUP)} !== undefined")
    page.run(f"{row_of(busy.MARKUP)}.click()")
    page.until(f"document.querySelector('.detail h2')?.innerText === {json.dumps(busy.MARKUP)}")
    assert page.run("document.querySelectorAll('#view img').length") == 0
    assert page.run("window.hacked") is None


def test_a_task_has_its_await_chain_and_its_creators(page: Browser) -> None:
    page.run(f"{row_of('blocker')}.click()")
    page.until("document.querySelector('.detail h2')?.innerText === 'blocker'")
    chain = page.text(".detail .chain")
    assert "busy.py:" in chain
    assert "→ sleep, 35" in chain
    assert "Created by" in page.run("document.querySelector('.detail').textContent")


def test_a_crowd_has_its_members_a_page_at_a_time(page: Browser) -> None:
    page.run(f"{row_of('300 ×')}.click()")
    page.until("document.querySelectorAll('.detail .list li').length === 200")
    page.run("[...document.querySelectorAll('.detail button')].at(-1).click()")
    page.until("document.querySelector('.detail .list li')?.innerText.startsWith('worker-200')")
    page.run("document.querySelector('.detail .list button').click()")
    page.until("document.querySelector('.detail h2')?.innerText === 'worker-200'")


def test_the_filter_takes_words_a_state_and_an_age(page: Browser) -> None:
    page.type("input[type=search]", "holder lock")
    page.until("document.querySelectorAll('.task').length === 1")
    assert "2 × holder" in rows(page)[0]
    page.until("document.querySelector('.bar .far').innerText.startsWith('2 of ')")
    page.run("document.querySelector('input[type=search]').value = 'no such thing'")
    page.type("input[type=search]", "!")
    page.until("document.querySelector('.rows .empty') !== null")
    choose = (
        "for (const [i, value] of [[0, 'sleeping'], [1, '3600']]) {"
        "  const select = document.querySelectorAll('.bar select')[i];"
        "  select.value = value; select.dispatchEvent(new Event('change')); }"
        "document.querySelector('input[type=search]').value = ''"
    )
    page.run(choose.replace("3600", ""))
    page.until(
        "(all => all.length > 1 && all.every(row => row.innerText.includes('sleeping')))"
        "([...document.querySelectorAll('.task')])"
    )
    page.run(choose)
    page.until("document.querySelector('.rows .empty') !== null")


def test_tabs_go_by_keys(page: Browser) -> None:
    page.run("document.querySelector('[role=tab]').focus()")
    for view in [*VIEWS[1:], VIEWS[0]]:
        page.press("ArrowRight")
        assert page.run("document.activeElement.getAttribute('aria-selected')") == "true"
        assert page.text("[aria-selected=true]").startswith(view)
        assert page.run("document.querySelector('#view section').ariaLabel") == view
    page.press("End")
    assert page.text("[aria-selected=true]").startswith("Stalls")
    for number, view in enumerate(VIEWS, 1):
        page.press(str(number))
        assert page.text("[aria-selected=true]").startswith(view)
    # One tab at a time is in the order of Tab.
    assert page.run("document.querySelectorAll('[role=tab][tabindex=\"0\"]').length") == 1


def test_the_tree_goes_by_keys(page: Browser) -> None:
    page.run("document.querySelector('[role=tree]').focus()")
    before = len(rows(page))
    page.press("ArrowDown")
    chosen = "document.querySelector('.task[aria-selected=true]')"
    assert page.run(f"{chosen}.getAttribute('aria-expanded')") == "true"
    active = "document.querySelector('[role=tree]').getAttribute('aria-activedescendant')"
    assert page.run(f"{active} === {chosen}.id")
    page.press("ArrowLeft")
    assert page.run(f"{chosen}.getAttribute('aria-expanded')") == "false"
    assert len(rows(page)) == 1 < before
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert page.run(f"{chosen}.getAttribute('aria-level')") == "2"
    page.press("Enter")
    assert page.run("document.activeElement.classList.contains('detail')")
    page.press("Escape")
    assert page.run("document.activeElement.getAttribute('role')") == "tree"


def test_a_key_lists_the_keys_and_others_act(page: Browser) -> None:
    page.press("?")
    page.until("document.querySelector('dialog[open]') !== null")
    assert "freeze" in page.text("dialog")
    page.press("2")
    assert page.text("[aria-selected=true]").startswith("Tasks"), "the dialog has the keys"
    page.run("document.querySelector('dialog').close()")
    page.press("/")
    assert page.run("document.activeElement.type") == "search"
    page.press("f")
    assert page.run("document.querySelector('#freeze').ariaPressed") == "false", "it is typed"


def test_it_can_be_frozen_and_stands_still_while_nobody_looks(page: Browser) -> None:
    page.press("f")
    page.until("document.querySelector('#pulse').innerText === 'frozen'")
    # Whatever was under way is over when this is.
    page.run("new Promise(done => setTimeout(done, 1500))")
    page.requests.clear()
    page.run("new Promise(done => setTimeout(done, 2500))")
    assert page.requests == []
    page.press("f")
    page.until("document.querySelector('#pulse').innerText === 'live'")
    hide = "Object.defineProperty(document, 'hidden', { value: %s, configurable: true });"
    page.run(hide % "true" + "document.dispatchEvent(new Event('visibilitychange'))")
    page.run("new Promise(done => setTimeout(done, 1500))")
    page.requests.clear()
    page.run("new Promise(done => setTimeout(done, 2500))")
    assert page.requests == []
    page.run(hide % "false" + "document.dispatchEvent(new Event('visibilitychange'))")
    page.until("performance.now() > 0")
    page.run("new Promise(done => setTimeout(done, 500))")
    assert page.requests != []


def test_a_recording_is_drawn_and_goes_by_keys(page: Browser) -> None:
    page.press("2")
    page.run("document.querySelector('#view select').value = '1'")
    page.press("r")
    page.until("document.querySelectorAll('.timeline .label').length > 5")
    labels = page.run("[...document.querySelectorAll('.label')].map(label => label.innerText)")
    assert any("child-1" in label for label in labels), labels
    # Those that did nothing meanwhile are shown if one wants.
    assert not any("worker" in label for label in labels), labels
    page.click(".tl-whole .bar button")
    page.until("[...document.querySelectorAll('.label')].some(l => l.innerText.includes('worker'))")
    page.click(".tl-whole .bar button")
    painted = (
        "(canvas => new Set(new Uint32Array(canvas.getContext('2d')"
        ".getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size)"
        "(document.querySelector('.bars'))"
    )
    page.until(f"{painted} > 5")
    picture = "document.querySelector('.bars').toDataURL()"
    whole = page.run(picture)
    page.press("+")
    page.until(f"{picture} !== {json.dumps(whole)}")
    page.press("ArrowDown")
    page.until("document.querySelector('.tl-split .detail h2') !== null")
    assert "Longest step" in page.text(".tl-split .detail")
    page.press("0")
    page.until("document.querySelector('.findings p') !== null")
    assert "under way at once" in page.text(".findings")


def test_loops_have_numbers_and_charts(page: Browser) -> None:
    page.press("3")
    page.until("document.querySelectorAll('.chart canvas').length === 4")
    page.until("document.querySelector('.tile dd').innerText.includes('%')")
    tiles = page.text(".tiles")
    for name in ("Busy", "Lag", "Tasks", "Ready", "Timers", "Steps"):
        assert name in tiles
    drawn = (
        "[...document.querySelectorAll('.chart canvas')].every(canvas => "
        "canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)"
        ".data.some(byte => byte))"
    )
    page.until(drawn)


def test_a_stall_has_its_place(page: Browser) -> None:
    page.press("5")
    page.until("document.querySelector('.stall') !== null")
    assert "task blocker" in page.text(".stall h2")
    assert "busy.py:" in page.text(".stall ol li")


def test_nothing_is_asked_of_anybody_else(page: Browser, web: Web) -> None:
    for key in "12345":
        page.press(key)
        page.run("new Promise(done => setTimeout(done, 300))")
    assert len(page.requests) > 20
    assert [url for url in page.requests if not url.startswith(web.url)] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_has_the_system_s_colours_until_another_is_chosen(page: Browser, scheme: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page.run("localStorage.clear()")
    page.scheme(scheme)
    first = page.run(ground)
    assert (sum(map(int, first[4:-1].split(", "))) < 200) is (scheme == "dark")
    page.press("t")
    assert page.run(ground) != first
    page.run("localStorage.clear()")


@pytest.mark.parametrize("view", ["tasks", "timeline", "loops", "requests", "stalls"])
def test_a_narrow_screen_is_enough(chromium: Browser, web: Web, view: str) -> None:
    opened(chromium, web, f"#{view}")
    chromium.size(360, 740)
    if view == "timeline":
        chromium.until("!document.querySelector('button.main').disabled")
        chromium.run("document.querySelector('#view select').value = '1'")
        chromium.click("button.main")
        chromium.until("document.querySelector('.timeline') !== null")
        chromium.press("ArrowDown")
    if view == "tasks":
        chromium.until("document.querySelectorAll('.task').length > 4")
        chromium.run("document.querySelector('.task').click()")
        chromium.until("document.querySelector('.detail h2') !== null")
    chromium.until(f"document.querySelector('[aria-selected=true]').id === 'tab-{view}'")
    width = chromium.run("[document.documentElement.scrollWidth, document.body.scrollWidth]")
    assert width == [360, 360]
    assert chromium.complaints == []


# ------------------------------------------------------- what a program has only by chance


@contextlib.contextmanager
def told(folder: Path, **answers: Any) -> Iterator[Web]:
    """The page of a process that answers so."""
    (folder / "answers").write_text(json.dumps({**QUIET, **answers}))
    env = {"XDG_RUNTIME_DIR": str(folder)}
    fake = subprocess.Popen(
        [sys.executable, "-m", "tests.inspect.fake", str(folder / "answers")],
        cwd=ROOT,
        env=environment(**env),
        stdout=subprocess.PIPE,
    )
    assert fake.stdout is not None
    try:
        assert fake.stdout.readline() == b"there\n"
        with inspected(folder, "web", str(fake.pid)) as web:
            yield web
    finally:
        fake.kill()
        fake.wait(PATIENCE)
        fake.stdout.close()


LOOP = {"id": 1, "thread": 1, "phase": "idle", "in_phase": 0.1, "age": 30.0, "busy": 0.1}
LOOP |= {"idle": 27.0, "steps": 9, "turns": 9, "polls": 9, "ready": 0, "timers": 0, "tasks": 1}
QUIET: dict[str, Any] = {
    "stats": {"created": 1, "loops": [{**LOOP, "lag": [0] * 24}]},
    "stalls": {"stalls": []},
    "tasks": {"frames": [], "chains": [[]], "ages": [], "loops": [], "tasks": []},
}
REQUEST = {"id": 1, "method": "GET", "path": "/books/?q=<b>", "age": 0.5, "task": None}
REQUEST |= {"view": "shelf.views.index", "hops": 7, "hop_wait": 0.1, "thread_run": 0.25}


def test_requests_have_their_parts_and_their_tax(chromium: Browser, tmp_path: Path) -> None:
    ended = {**REQUEST, "id": 2, "seconds": 0.5, "ago": 0.5, "status": 500, "view": None}
    plain = {"id": 3, "method": "POST", "path": "/new", "seconds": 0.25, "ago": 0.0, "status": 201}
    slow = {"id": 2, "view": "shelf.views.slow"}
    requests: dict[str, Any] = {
        "requests": [{**REQUEST, "state": "thread", "task": 4}],
        "recent": [ended, plain],
    }
    requests["slow"] = [slow]
    with told(tmp_path, requests=requests) as web:
        opened(chromium, web, "#requests")
        chromium.until("document.querySelectorAll('tbody tr').length === 3")
        shown = "[...document.querySelectorAll('tbody tr')].map(row => row.innerText)"
        first, *others = chromium.run(shown)
        assert "/books/?q=<b>" in first and "thread" in first and "7" in first
        assert any("500" in other and "views.slow" in other for other in others)
        parts = (
            "[...document.querySelectorAll('tbody tr')].map(row => "
            "[...row.querySelectorAll('.fall i')].map(part => [part.className, part.style.width]))"
        )
        bars = chromium.run(parts)
        assert bars[0] == [["hop", "20%"], ["thread", "50%"], ["rest", "30%"]]
        assert [["rest", "50%"]] in bars
        # 0.2 of 1.25 s.
        assert "16 %" in chromium.text("dl.tiles")
        # On one axis: a second ago one began that lasted half of it.
        choose = "select => { select.value = 'fall'; select.dispatchEvent(new Event('change')); }"
        chromium.run(f"({choose})(document.querySelector('#view select'))")
        falling = chromium.run(parts)
        assert falling[0][:2] == [["blank", "50%"], ["hop", "10%"]]
        assert [["blank", "75%"], ["rest", "25%"]] in falling
        assert [["hop", "10%"], ["thread", "25%"], ["rest", "15%"]] in falling
        chromium.type("input[type=search]", "post")
        chromium.until("document.querySelectorAll('tbody tr').length === 1")
        assert chromium.complaints == []


def test_a_thread_at_a_request_shows_its_stack(chromium: Browser, tmp_path: Path) -> None:
    under_way = {**REQUEST, "state": "thread"}
    stack = [["/srv/shelf/views.py", 12, "index"], ["/srv/<b>.py", 7, "run"]]
    plain: dict[str, Any] = {"requests": [under_way, {**REQUEST, "id": 2, "state": "waiting"}]}
    plain |= {"recent": [], "slow": []}
    deep = {**plain, "requests": [{**under_way, "stack": stack}, plain["requests"][1]]}
    with told(tmp_path, requests=plain, **{"requests stacks": deep}) as web:
        opened(chromium, web, "#requests")
        button = "tbody button[data-button^=stack]"
        chromium.until(f"document.querySelectorAll('{button}').length === 1")
        assert chromium.run("document.querySelectorAll('.frames').length") == 0
        chromium.run(f"document.querySelector('{button}').focus()")
        chromium.press("Enter")
        chromium.until("document.querySelectorAll('.frames li').length === 2")
        assert chromium.text(".frames").split("\n")[0] == "index /srv/shelf/views.py:12"
        assert "/srv/<b>.py:7" in chromium.text(".frames")
        # The rows are made anew with each answer: the keyboard stays where it was.
        chromium.run("window.row = document.querySelector('tbody tr')")
        chromium.until("!window.row.isConnected")
        assert chromium.run("document.activeElement.getAttribute('aria-expanded')") == "true"
        chromium.press("Enter")
        chromium.until("document.querySelectorAll('.frames').length === 0")
        assert chromium.complaints == []


def test_a_process_that_tells_no_requests_is_no_failure(chromium: Browser, tmp_path: Path) -> None:
    with told(tmp_path) as web:
        opened(chromium, web, "#requests")
        chromium.until("document.body.innerText.includes('tell nothing of requests')")
        assert chromium.complaints == []


def test_threads_and_memory_are_shown_where_they_are_told(
    chromium: Browser, tmp_path: Path
) -> None:
    pool = {"threads": 4, "busy": 2, "queued": 0, "calls": 9, "waited": 0.1, "ran": 3.0}
    stats = {**QUIET["stats"], "pool": pool, "process": {"cpu": 1.5, "rss": 88 * 2**20}}
    with told(tmp_path, stats=stats) as web:
        opened(chromium, web, "#loops")
        chromium.until("document.querySelector('.tiles')?.innerText.includes('88 MiB')")
        assert "2 of 4" in chromium.text(".tiles")


def test_the_url_with_a_token_opens_the_page_and_leaves_the_address(
    chromium: Browser, tmp_path: Path
) -> None:
    words = ("run", "--inspect", "0.0.0.0:0", "-m", "tests.inspect.busy")
    with inspected(tmp_path, *words) as web:
        host, port = web.address
        page = f"http://{host}:{port}/"
        # From another origin, as from a link in a chat.
        chromium.open("data:text/html,<p>elsewhere")
        chromium.run(f"location.href = '{page}?token={web.token}'")
        chromium.until("document.querySelectorAll('.task').length > 4")
        assert chromium.run("location.href") == f"{page}#tasks"
        assert web.token not in chromium.run("document.documentElement.outerHTML")
        chromium.open("about:blank")
        chromium.open(f"{page}api/state")
        chromium.until("document.body.innerText.includes('loops')")


def test_a_program_that_has_ended_is_said_so(chromium: Browser, tmp_path: Path) -> None:
    with told(tmp_path) as web:
        opened(chromium, web)
        chromium.until("document.querySelector('#pulse').innerText === 'live'")
        web.process.kill()
        chromium.until("document.querySelector('#pulse').innerText === 'lost'")
        assert "does not answer" in chromium.text("#notice")


def test_a_hundred_thousand_tasks_do_not_freeze_it(chromium: Browser, tmp_path: Path) -> None:
    many = 100_000
    frames = [["/app/crawler.py", number, f"step_{number}"] for number in range(50)]
    tasks = [
        {
            "id": number,
            "name": f"task-{number}",
            "loop": 1,
            "state": "waiting",
            "coro": "crawl",
            "chain": number % 50,
            "on": {"kind": "call", "call": "Queue.get", "what": f"<Queue at 0x{number:x}>"},
        }
        for number in range(1, many + 1)
    ]
    snapshot = {
        "frames": frames,
        "chains": [[number] for number in range(50)],
        "ages": [[many, 1.0]],
        "loops": [{"id": 1, "thread": 1, "phase": "idle", "tasks": many}],
        "tasks": tasks,
    }
    with told(tmp_path, tasks=snapshot) as web:
        opened(chromium, web)
        chromium.until("document.querySelectorAll('.task').length > 10")
        assert "100 k tasks" in chromium.text(".bar .far")
        # Only those that are seen are in the document.
        assert chromium.run("document.querySelectorAll('*').length") < 1500
        chromium.run("document.querySelector('[role=tree]').focus()")
        chromium.press("End")
        chromium.until("document.querySelector('.task[aria-selected=true]') !== null")
        chromium.until("document.querySelector('.detail .list') !== null")
        assert "2 000" in chromium.text(".detail .facts")
