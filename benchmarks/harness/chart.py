"""A run as one SVG: a group of bars per case, each group scaled to its slowest bar.

Each group has a scale of its own because the cases differ by a thousand times; the figure stands
at the end of each bar, so nothing has to be read off an axis.  A dashed line through a group is
the bare limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from harness.figures import Figures, Run
from harness.report import Section, name

COLOURS = {
    "rondel": "#c2410c",
    "off": "#94a3b8",
    "asyncio": "#94a3b8",
    "uvloop": "#64748b",
    "rloop": "#475569",
    "zuvloop": "#334155",
    "uvicorn": "#94a3b8",
    "uvicorn-sansio": "#94a3b8",
    "uvicorn-wsproto": "#cbd5e1",
    "granian": "#64748b",
    "granian-asgi": "#64748b",
    "granian-wsgi": "#0369a1",
    "gunicorn": "#7dd3fc",
    "hypercorn": "#475569",
}
WIDTH = 860
LABELS = 220
"""Room for the case's title, left of the bars."""

BARS = WIDTH - LABELS - 90
"""Length of the longest bar; the rest is for its figure."""

BAR, GAP, TOP = 11, 10, 34


def plain(title: str) -> str:
    return title.replace("`", "")


class Canvas:
    """Elements from the top down; `y` is where the next one goes."""

    def __init__(self) -> None:
        self.y = 0.0
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, **attributes: str) -> None:
        more = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(words)}</text>')

    def group(
        self, figures: Figures, case: str, title: str, subjects: list[str], digits: int
    ) -> None:
        values = {subject: figures.figure(case, subject) for subject in subjects}
        known = {subject: value for subject, value in values.items() if value is not None}
        if not known:
            return
        longest = max(known.values())
        start = self.y
        height = BAR * len(known)
        self.text(LABELS - 10, start + height / 2 + 4, plain(title), text_anchor="end")
        for subject, value in known.items():
            length = max(1.0, value / longest * BARS)
            self.parts.append(
                f'<rect x="{LABELS}" y="{self.y:.1f}" width="{length:.1f}" height="{BAR - 1}" '
                f'fill="{COLOURS[subject]}"><title>{name(subject)}</title></rect>'
            )
            weight = "bold" if subject == "rondel" else "normal"
            figure = f"{value:,.{digits}f}".replace(",", " ")
            self.text(LABELS + length + 5, self.y + 9, figure, font_size="10", font_weight=weight)
            self.y += BAR
        floor = figures.figure(case, "bare")
        if floor is not None and floor <= longest:
            x = LABELS + floor / longest * BARS
            self.parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{start - 3:.1f}" y2="{self.y + 2:.1f}" '
                'stroke="#111" stroke-dasharray="2 2"/>'
            )
        self.y += GAP

    def section(self, part: Section) -> None:
        figures = part.figures
        subjects = [subject for subject in part.subjects if subject in COLOURS]
        self.y += TOP
        self.text(20, self.y, part.title, font_size="15", font_weight="bold")
        x = 20.0
        self.y += 20
        for subject in subjects:
            self.parts.append(
                f'<rect x="{x:.0f}" y="{self.y - 9:.0f}" width="10" height="10" '
                f'fill="{COLOURS[subject]}"/>'
            )
            self.text(x + 15, self.y, name(subject))
            x += 105
        if any(figures.figure(case, "bare") is not None for case, _ in part.lines):
            self.text(x, self.y, "dashed: the bare limit")
        self.y += 16
        for case, title in part.lines:
            self.group(figures, case, title, subjects, part.digits)

    def svg(self) -> str:
        height = self.y + 14
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'width="{WIDTH}" height="{height:.0f}" font-family="sans-serif" font-size="12">\n'
            '<rect width="100%" height="100%" fill="#fff"/>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def svg(run: Run, parts: Sequence[Section]) -> str:
    canvas = Canvas()
    canvas.y = 26
    canvas.text(20, canvas.y, f"{run.about['date']}, {run.about['interpreter']}; shorter is better")
    for part in parts:
        if part.lines:
            canvas.section(part)
    return canvas.svg()
