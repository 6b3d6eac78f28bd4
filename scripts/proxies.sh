#!/bin/sh
# nginx, HAProxy and Caddy for the tests of what stands in front of a server.
#
#   proxies.sh install    Debian's packages, if one is missing and this is root
set -eu

fail() {
    echo "$*" >&2
    exit 1
}

case "${1:-}" in
install)
    PATH=$PATH:/usr/sbin
    command -v nginx >/dev/null && command -v haproxy >/dev/null && command -v caddy >/dev/null && exit 0
    [ "$(id -u)" = 0 ] || fail "nginx, haproxy or caddy is missing and only root can install it"
    command -v apt-get >/dev/null || fail "nginx, haproxy or caddy is missing and there is no apt-get"
    export DEBIAN_FRONTEND=noninteractive
    # The packages start servers of their own, on the usual ports, which are neither needed nor wanted.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
    fi
    apt-get update -qq >/dev/null
    apt-get install -y -qq --no-install-recommends nginx-light haproxy caddy >/dev/null
    ;;
*)
    fail "usage: proxies.sh install"
    ;;
esac
