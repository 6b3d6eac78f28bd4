"""Where the views are: `/sync/...` and `/async/...` are twins."""

from django.urls import path

from rules_site.views import database, requests, responses

handler400 = "rules_site.errors.bad_request"
handler403 = "rules_site.errors.denied"
handler404 = "rules_site.errors.not_found"
handler500 = "rules_site.errors.server_error"

urlpatterns = [
    path("sync/", requests.sync_facts, name="sync"),
    path("async/", requests.async_facts),
    path("sync/päth/<str:name>/", requests.sync_facts),
    path("async/päth/<str:name>/", requests.async_facts),
    path("meta/", requests.meta),
    path("sync/body/", requests.body),
    path("async/body/", requests.async_body),
    path("answer/", requests.answer),
    path("sync/raise/<str:what>/", requests.raise_sync),
    path("async/raise/<str:what>/", requests.raise_async),
    path("sync/nothing/", requests.nothing_sync),
    path("async/nothing/", requests.nothing_async),
    path("sync/template/<str:name>/", requests.template_sync),
    path("async/template/<str:name>/", requests.template_async),
    path("sync/closing/", responses.closing_sync),
    path("async/closing/", responses.closing_async),
    path("sync/stream/", responses.stream_sync),
    path("async/stream/", responses.stream_async),
    path("async/stream/of-sync/", responses.stream_sync_from_async_view),
    path("sync/stream/of-async/", responses.stream_async_from_sync_view),
    path("sync/file/", responses.file_sync),
    path("async/file/", responses.file_async),
    path("file/temporary/", responses.file_temporary),
    path("file/buffer/", responses.file_buffer),
    path("sync/file/as/<str:form>/", responses.file_as_sync),
    path("async/file/as/<str:form>/", responses.file_as_async),
    path("open-files/", responses.open_files),
    path("sync/backend/", database.backend_sync),
    path("async/backend/", database.backend_async),
    path("sync/write/", database.write_sync),
    path("sync/write/unbound/", database.write_sync_unbound),
    path("async/write/", database.write_async),
    path("async/write/unbound/", database.write_async_unbound),
    path("entries/", database.entries),
    path("split/", database.split_transaction),
    path("sync/threads/", database.threads_sync),
    path("async/threads/", database.threads_async),
    path("sync/context/", database.context_sync),
    path("async/context/", database.context_async),
    path("clean-context/", database.clean_context),
    path("hold/", database.hold),
    path("spin/", database.spin),
]
