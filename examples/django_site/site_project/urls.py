"""URLs of the project: the admin, and the app at the root."""

from django.contrib import admin
from django.urls import include, path

admin.site.site_header = "The Round Shelf · 圆书架"
admin.site.site_title = "The Round Shelf"
admin.site.index_title = "Administration · 管理后台"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("shelf.urls")),
]
