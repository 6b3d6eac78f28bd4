#!/bin/sh
# A private Redis server for tests: no TCP, one Unix socket, nothing kept.
#
#   redis.sh install    Debian's package, if it is missing and this is root
#   redis.sh start      start one; prints its directory, in which `redis.sock` is its socket
#   redis.sh stop DIR   end it and remove the directory
#
# There is no password: the socket's directory, which only its owner can enter, is all there is to
# know.
set -eu

fail() {
    echo "$*" >&2
    exit 1
}

case "${1:-}" in
install)
    command -v redis-server >/dev/null && exit 0
    [ "$(id -u)" = 0 ] || fail "redis-server is missing and only root can install it"
    command -v apt-get >/dev/null || fail "redis-server is missing and there is no apt-get"
    export DEBIAN_FRONTEND=noninteractive
    # The package starts a server of its own, on the usual port, which is neither needed nor wanted.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
    fi
    apt-get update -qq >/dev/null
    apt-get install -y -qq --no-install-recommends redis-server >/dev/null
    ;;
start)
    program=$(command -v redis-server) || fail "redis-server is not installed: apt-get install redis-server"
    # Not below TMPDIR: a socket's path has room for 107 bytes.
    folder=$(mktemp -d /tmp/rondel-redis.XXXXXX)
    cat >"$folder/redis.conf" <<END
port 0
unixsocket $folder/redis.sock
unixsocketperm 700
dir $folder
save ""
appendonly no
daemonize no
pidfile ""
END
    "$program" "$folder/redis.conf" >"$folder/server.log" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$folder/pid"
    turns=0
    # Its socket is there as soon as it answers.
    while [ ! -S "$folder/redis.sock" ]; do
        turns=$((turns + 1))
        if ! kill -0 "$pid" 2>/dev/null || [ "$turns" -gt 200 ]; then
            kill "$pid" 2>/dev/null || true
            tail -n 5 "$folder/server.log" >&2
            rm -rf "$folder"
            fail "Redis did not start"
        fi
        sleep 0.05
    done
    echo "$folder"
    ;;
stop)
    folder=${2:?the directory that start printed}
    pid=$(cat "$folder/pid" 2>/dev/null || true)
    if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; fi
    rm -rf "$folder"
    ;;
*)
    fail "usage: redis.sh install | start | stop DIR"
    ;;
esac
