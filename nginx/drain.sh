#!/bin/sh
# The edge's end: preStop in Kubernetes, ExecStop in systemd, else what SIGTERM to entrypoint.sh does. Waits until load
# balancers have noticed, has every gateway say goodbye to the sessions that came through here, and ends Nginx when nobody
# is connected any more, or CARILLON_EDGE_DRAIN_TIMEOUT is over.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=goodbye.sh
. "$here/goodbye.sh"
run=$(setting RUN)

# What a hook prints reaches no log: the container's has what its first process writes.
if [ -w /proc/1/fd/2 ]; then
    case $(cat /proc/1/cmdline) in
    *nginx/entrypoint.sh*) exec 2>/proc/1/fd/2 ;;
    esac
fi

if [ ! -s "$run/nginx.pid" ]; then
    say "no Nginx runs in $run"
    exit 1
fi
sleep "$(setting DRAIN_DELAY)"
# From now on who comes through a connection that is open already is answered 503, and it is closed.
: >"$run/draining"
say_goodbye "$(cat "$run/edge-id")" "$(setting DRAIN_TIMEOUT)" nobody_is_connected
kill -QUIT "$(cat "$run/nginx.pid")"
