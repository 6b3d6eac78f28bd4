"""One page per way of concurrency: runs it, draws what overlapped, shows the source."""

import inspect

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from ..timeline import Timeline
from ..ways import WAYS

# Read once: the source does not change while the process runs.
_SOURCES = {slug: inspect.getsource(way.run) for slug, way in WAYS.items()}


async def way(request: HttpRequest, slug: str) -> HttpResponse:
    """Run the way called `slug`; `?format=json` gives the measured times to programs."""
    chosen = WAYS.get(slug)
    if chosen is None:
        raise Http404(f"There is no way {slug!r}; there are: {', '.join(WAYS)}.")
    timeline = Timeline()
    said = await chosen.run(timeline)
    report = timeline.report()
    if request.GET.get("format") == "json":
        return JsonResponse({"way": slug, "said": said, **report.as_json()})
    return render(
        request,
        "shelf/way.html",
        {
            "way": chosen,
            "ways": WAYS.values(),
            "said": said,
            "report": report,
            "source": _SOURCES[slug],
        },
    )
