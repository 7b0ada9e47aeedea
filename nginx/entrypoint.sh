#!/bin/sh
# The edge's start: renders the configuration and runs Nginx. SIGTERM is `drain.sh`, so that `docker stop` and whatever
# else knows no hooks cuts nobody; once more, or after a hook has drained already, it ends Nginx at once. Others go on to
# Nginx: INT (at once), QUIT (when requests have ended), HUP (reload), USR1 (open logs anew).
set -eu
# PID 1 has no default actions: until Nginx runs, nothing has to be told goodbye.
trap 'exit 143' TERM INT QUIT

here=$(cd "$(dirname "$0")" && pwd)
sh "$here/render.sh"
run=$(sh "$here/render.sh" --get RUN)
program=$(sh "$here/render.sh" --get NGINX)
drain=

# shellcheck disable=SC2329  # the trap below calls it
end() {
    if [ -n "$drain" ] || [ -e "$run/draining" ]; then
        kill -TERM "$nginx"
    else
        sh "$here/drain.sh" &
        drain=$!
    fi
}

"$program" -p "$run" -c "$run/nginx.conf" -e stderr -g 'daemon off;' &
nginx=$!
trap end TERM
for signal in INT QUIT HUP USR1; do
    # shellcheck disable=SC2064  # the signal's name is that of now
    trap "kill -$signal $nginx" "$signal"
done

# A signal ends a `wait` before its time.
while kill -0 "$nginx" 2>/dev/null; do
    status=0
    wait "$nginx" || status=$?
done
# It would end the next Nginx that runs here.
[ -z "$drain" ] || kill "$drain" 2>/dev/null || :
exit "$status"
