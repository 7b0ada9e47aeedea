#!/bin/sh
# The edge's end: preStop in Kubernetes, pre_stop in Compose, ExecStop in systemd. Waits until load balancers have
# noticed, has every gateway say goodbye to the sessions that came through here, and ends Nginx when nobody is connected
# any more, or CARILLON_EDGE_DRAIN_TIMEOUT is over. `--stay` leaves Nginx's end to who called: Compose would take a
# container that ends by itself for one to be started again.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=goodbye.sh
. "$here/goodbye.sh"
run=$(setting RUN)

if [ ! -s "$run/nginx.pid" ]; then
    say "no Nginx runs in $run"
    exit 1
fi
sleep "$(setting DRAIN_DELAY)"
# From now on who comes through a connection that is open already is answered 503, and it is closed.
: >"$run/draining"
say_goodbye "$(cat "$run/edge-id")" "$(setting DRAIN_TIMEOUT)" nobody_is_connected
if [ "${1-}" != --stay ]; then
    kill -QUIT "$(cat "$run/nginx.pid")"
fi
