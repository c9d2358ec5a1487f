# A private PostgreSQL cluster in a folder of its own. Sourced; needs $postgres_bin.
#
# Two doors: the superuser `postgres` only through a unix socket inside the folder (mode 0700), and the
# ordinary role `valetkey` (CREATEDB, no superuser, no BYPASSRLS, since the program refuses those) through
# 127.0.0.1. Nothing is synced to disk: the cluster lives as long as the tests. New segments of its log are not filled with
# zeros, which holds up every commit: a server that has run for a while uses its old ones again. $postgres_connections,
# if set, is how many connections it takes (200).

postgres_pid=
postgres_port=

# `initdb` and `postgres` refuse root.
postgres_as=(setpriv)
postgres_user() {
  [ "$(id -u)" -eq 0 ] || return 0
  local name
  for name in postgres nobody; do
    if id -u "$name" >/dev/null 2>&1; then
      postgres_as=(setpriv --reuid "$(id -u "$name")" --regid "$(id -g "$name")" --clear-groups)
      chown "$name" "$1"
      return 0
    fi
  done
  echo "neither postgres nor nobody exists: cannot start PostgreSQL as root" >&2
  exit 2
}

postgres_start() {
  local folder="$1" attempt
  mkdir -m 0700 "$folder"
  chmod 0711 "$(dirname "$folder")"   # the other user has to pass through, not to look
  postgres_user "$folder"
  # A unix socket path may have 107 bytes at most.
  if [ ${#folder} -gt 85 ]; then echo "TMPDIR is too long for a socket: $folder" >&2; exit 2; fi
  (cd "$folder" && "${postgres_as[@]}" -- "$postgres_bin/initdb" -D "$folder/data" -U postgres -A trust -E UTF8 --locale=C --no-sync) >"$folder.initdb" 2>&1 \
    || { cat "$folder.initdb" >&2; exit 1; }
  printf '%s\n' 'local all postgres trust' 'host all valetkey 127.0.0.1/32 trust' >"$folder/data/pg_hba.conf"

  for attempt in 1 2 3 4 5; do
    postgres_port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    if postgres_try "$folder"; then postgres_role "$folder"; return 0; fi
  done
  cat "$folder.log" >&2
  echo "PostgreSQL did not start" >&2
  exit 1
}

# `--pdeathsig` ends the cluster even if this script is killed without a chance to clean up.
postgres_try() {
  local folder="$1" waited
  (exec 2>/dev/null; echo >/dev/tcp/127.0.0.1/"$postgres_port") 2>/dev/null && return 1
  cd "$folder"
  "${postgres_as[@]}" --pdeathsig INT -- "$postgres_bin/postgres" -D "$folder/data" \
    -c listen_addresses=127.0.0.1 -c port="$postgres_port" -c unix_socket_directories="$folder" \
    -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c wal_init_zero=off -c max_connections="${postgres_connections:-200}" \
    -c shared_buffers=128MB -c max_wal_size=2GB -c checkpoint_timeout=1h -c autovacuum_naptime=5min \
    -c log_min_messages=warning -c timezone=UTC >"$folder.log" 2>&1 &
  postgres_pid=$!
  cd "$root"
  for waited in $(seq 1 300); do
    kill -0 "$postgres_pid" 2>/dev/null || { postgres_pid=; return 1; }
    postgres_sql "$folder" 'select 1' >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  postgres_stop
  return 1
}

postgres_sql() { "$postgres_bin/psql" -X -q -h "$1" -p "$postgres_port" -U postgres -d postgres -v ON_ERROR_STOP=1 -c "$2"; }

# PostgreSQL 15 no longer lets everyone create in `public` of the shared database, so the role owns it.
postgres_role() {
  postgres_sql "$1" "create role valetkey login createdb nosuperuser nobypassrls"
  postgres_sql "$1" "alter database postgres owner to valetkey"
}

postgres_stop() {
  [ -n "$postgres_pid" ] || return 0
  local waited
  kill -INT "$postgres_pid" 2>/dev/null || true
  for waited in $(seq 1 50); do
    kill -0 "$postgres_pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -QUIT "$postgres_pid" 2>/dev/null || true
  wait "$postgres_pid" 2>/dev/null || true
  postgres_pid=
}
