"""One path per measured view; `harness/django/cases.py` says which is asked for where."""

from django.urls import path
from shop import views

urlpatterns = [
    path("minimal/sync", views.minimal_sync),
    path("minimal/async", views.minimal_async),
    path("query/sync", views.query_sync),
    path("query/async", views.query_async),
    path("three/sync", views.three_sync),
    path("three/async", views.three_async),
    path("page", views.page),
]
