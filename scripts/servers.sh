#!/bin/bash
# Private servers for the tests, under a temporary folder, on free ports; never one that is there already.
#
#   servers.sh postgres    starts PostgreSQL or finds the one started before; prints its URL
#   servers.sh restart     kills PostgreSQL as a crash would and starts it again on its port
#   servers.sh stop        stops what was started and removes its files
#
# TIDEGATE_SERVERS names another folder (default: one per checkout under /tmp). Safe to call from many tests at once.
set -euo pipefail
what=${1:?usage: servers.sh postgres|restart|stop}
here=$(cd "$(dirname "$0")/.." && pwd)
base=${TIDEGATE_SERVERS:-${TMPDIR:-/tmp}/tidegate-servers-$(id -u)-$(echo "$here" | cksum | cut -d' ' -f1)}

die() { echo "servers.sh: $*" >&2; exit 1; }

mkdir -p "$base"
# Others need to pass through to their own folder below.
chmod 711 "$base"
exec 9>"$base/lock"
flock 9

# PostgreSQL refuses to run as root.
user=''
if [ "$(id -u)" = 0 ]; then
  user=nobody
  id postgres >/dev/null 2>&1 && user=postgres
fi
# The server must inherit neither our lock nor one of whoever called us (a build's slot, a landing): it outlives them, and
# nobody would ever get them again.
as_user() (
  for fd in /proc/"$BASHPID"/fd/*; do
    fd=${fd##*/}
    [ "$fd" -le 2 ] || [ "$fd" = 255 ] || eval "exec $fd>&-"
  done
  if [ -n "$user" ]; then exec runuser -u "$user" -- "$@"; else exec "$@"; fi
)

pg=$base/postgres
pg_bin() {
  local found
  found=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
  [ -n "$found" ] || found=$(dirname "$(command -v pg_ctl || true)" 2>/dev/null)
  [ -x "$found/initdb" ] || die "PostgreSQL is missing; install it with: sudo apt-get install postgresql"
  echo "$found"
}
pg_running() { [ -f "$pg/data/postmaster.pid" ] && as_user "$bin/pg_ctl" -D "$pg/data" status >/dev/null 2>&1; }

start_postgres() {
  bin=$(pg_bin)
  if pg_running; then
    cat "$pg/url"
    return
  fi
  if [ ! -f "$pg/data/PG_VERSION" ]; then
    rm -rf "$pg"
    mkdir -p "$pg"
    [ -z "$user" ] || chown "$user" "$pg"
    (cd "$pg" && as_user "$bin/initdb" -D "$pg/data" -U tidegate -A trust -E UTF8 --locale=C.UTF-8 >"$pg/initdb.log" 2>&1) ||
      die "initdb failed: $(tail -3 "$pg/initdb.log")"
    # As durable as production: the tests and the figures are to mean something.
    cat >>"$pg/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = '$pg'
max_connections = 300
fsync = on
synchronous_commit = on
full_page_writes = on
max_wal_size = 2GB
CONF
  fi
  local port try
  for try in 1 2 3 4 5 6 7 8; do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    if (cd "$pg" && as_user "$bin/pg_ctl" -D "$pg/data" -l "$pg/server.log" -w -t 60 -o "-p $port" start >/dev/null 2>&1); then
      echo "postgres://tidegate@127.0.0.1:$port/postgres" >"$pg/url"
      cat "$pg/url"
      return
    fi
  done
  die "PostgreSQL does not start: $(tail -5 "$pg/server.log")"
}

case $what in
postgres) start_postgres ;;
restart)
  bin=$(pg_bin)
  port=$(sed 's|.*:\([0-9]*\)/.*|\1|' "$pg/url")
  (cd "$pg" && as_user "$bin/pg_ctl" -D "$pg/data" -l "$pg/server.log" -m immediate -w -t 60 -o "-p $port" restart >/dev/null 2>&1) ||
    die "PostgreSQL does not start again: $(tail -5 "$pg/server.log")"
  ;;
stop)
  if [ -d "$pg/data" ]; then
    bin=$(pg_bin)
    ! pg_running || (cd "$pg" && as_user "$bin/pg_ctl" -D "$pg/data" -m immediate -w stop >/dev/null) || true
  fi
  rm -rf "$pg"
  ;;
*) die "expected postgres, restart or stop, got $what" ;;
esac
