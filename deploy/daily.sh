#!/bin/sh
# A command a day where there is no timer, in a container: daily.sh HH:MM FILE COMMAND... At that time (UTC), or as soon as
# it can be when that was missed, and at once where it never ran: FILE's time says when it did. When it fails, in an hour
# again.
set -u

at=$1 stamp=$2
shift 2
child=

run() {
    "$@" &
    child=$!
    wait "$child"
}
trap 'kill $child 2>/dev/null; wait; exit 0' TERM INT

while :; do
    due=$(date -u -d "today $at" +%s) || exit 2
    [ "$due" -le "$(date +%s)" ] || due=$((due - 86400))
    if [ "$(date -r "$stamp" +%s 2>/dev/null || echo 0)" -lt "$due" ]; then
        if run "$@"; then
            touch "$stamp" || exit 1
        else
            echo "failed, again in an hour: $*" >&2
            run sleep 3600
        fi
    fi
    run sleep 30
done
