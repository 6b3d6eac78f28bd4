#!/bin/sh
# A private PostgreSQL cluster for tests: no TCP, one Unix socket, nothing kept.
#
#   postgres.sh install    Debian's package, if it is missing and this is root
#   postgres.sh start      start one; prints its directory, which is the socket's too
#   postgres.sh stop DIR   end it and remove the directory
#
# The database's superuser is `postgres`, without a password: the socket's directory is all there
# is to know. PostgreSQL refuses to run as root; root runs it as `postgres`, or else as `nobody`.
set -eu

fail() {
    echo "$*" >&2
    exit 1
}

program() { # NAME: where it is; Debian keeps the server's programs out of PATH
    for found in "$(command -v "$1" || true)" $(ls -d /usr/lib/postgresql/*/bin/"$1" 2>/dev/null | sort -rV); do
        [ -x "$found" ] && { echo "$found"; return; }
    done
    fail "$1 is not installed: apt-get install postgresql"
}

as_owner() { # COMMAND...: as a user that PostgreSQL accepts
    if [ "$(id -u)" != 0 ]; then
        "$@"
    elif command -v runuser >/dev/null; then
        runuser -u "$owner" -- "$@"
    else
        setpriv --reuid "$owner" --regid "$(id -gn "$owner")" --clear-groups "$@"
    fi
}

owner=$(id -un)
if [ "$owner" = root ]; then
    owner=nobody
    if id postgres >/dev/null 2>&1; then owner=postgres; fi
fi

case "${1:-}" in
install)
    (program initdb) >/dev/null 2>&1 && exit 0
    [ "$(id -u)" = 0 ] || fail "initdb is missing and only root can install it"
    command -v apt-get >/dev/null || fail "initdb is missing and there is no apt-get"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null
    # The package's own cluster is neither needed nor wanted.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    apt-get install -y -qq --no-install-recommends postgresql >/dev/null
    ;;
start)
    initdb=$(program initdb)
    pg_ctl=$(program pg_ctl)
    # Not below TMPDIR: a socket's path has room for 107 bytes, and the owner must get in.
    folder=$(mktemp -d /tmp/rondel-pg.XXXXXX)
    [ "$owner" = "$(id -un)" ] || chown "$owner" "$folder"
    cd /
    log=$folder/start.log
    if ! as_owner "$initdb" -D "$folder/data" -U postgres -A trust -E UTF8 --no-locale --no-sync \
        >"$log" 2>&1; then
        tail -n 3 "$log" >&2
        rm -rf "$folder"
        fail "initdb failed"
    fi
    cat >>"$folder/data/postgresql.conf" <<EOF
listen_addresses = ''
unix_socket_directories = '$folder'
max_connections = 200
fsync = off
synchronous_commit = off
full_page_writes = off
EOF
    if ! as_owner "$pg_ctl" -D "$folder/data" -l "$folder/data/server.log" -w -t 30 start \
        >"$log" 2>&1; then
        tail -n 5 "$log" "$folder/data/server.log" >&2
        rm -rf "$folder"
        fail "PostgreSQL did not start"
    fi
    echo "$folder"
    ;;
stop)
    folder=${2:?the directory that start printed}
    pg_ctl=$(program pg_ctl)
    cd /
    as_owner "$pg_ctl" -D "$folder/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$folder"
    ;;
*)
    fail "usage: postgres.sh install | start | stop DIR"
    ;;
esac
