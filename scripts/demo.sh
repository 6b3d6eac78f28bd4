#!/bin/sh
# Prepares the example Django project (SQLite, migrations, seed data) and serves it.
#
# usage: demo.sh BIN    (the bin directory of a virtual environment that has rondel)
# HOST and PORT choose the address.
set -eu
bin=$(cd "$1" && pwd)
host=${HOST:-127.0.0.1}
port=${PORT:-8000}
cd "$(dirname "$0")/../examples/django_site"
"$bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
"$bin/python" manage.py migrate --noinput --verbosity 0
"$bin/python" manage.py seed
cat <<TEXT

  Open http://$host:$port/ first: the page says what is there to see.
  The admin is at http://$host:$port/admin/ (user admin, password admin).
  Ctrl+C stops the server.

TEXT
exec "$bin/rondel" serve site_project.asgi:application --host "$host" --port "$port"
