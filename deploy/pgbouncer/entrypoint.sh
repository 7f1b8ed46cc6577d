#!/bin/sh
# The password of the environment into the file that PgBouncer reads, then PgBouncer. The server's role alone comes this
# way; a password holds no quotes (deploy/.env.example).
set -eu

umask 077
printf '"tickhub_write" "%s"\n' "${WRITE_PASSWORD:?}" > /tmp/userlist.txt
unset WRITE_PASSWORD
exec pgbouncer "${1:-/etc/pgbouncer/compose.ini}"
