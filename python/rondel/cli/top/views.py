"""The views there are, in the order of their keys."""

from rondel.cli.top.list_views import ProcessesView, RequestsView, StallsView, ThreadsView
from rondel.cli.top.task_views import TasksView, TreeView
from rondel.cli.top.view import View

__all__ = ["PROCESSES", "VIEWS"]

VIEWS: tuple[View, ...] = (
    TreeView(),
    TasksView(),
    RequestsView(),
    ThreadsView(),
    StallsView(),
)
PROCESSES: View = ProcessesView()
