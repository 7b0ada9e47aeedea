#!/bin/sh
# A reload that cuts nobody: renders the configuration anew under a new name of this edge, has Nginx take it, and has the
# gateways say goodbye to the sessions of the old name, so that the old workers end by themselves.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=goodbye.sh
. "$here/goodbye.sh"
run=$(setting RUN)

workers_are_gone() {
    for worker in $workers; do
        if kill -0 "$worker" 2>/dev/null; then
            return 1
        fi
    done
}

master=$(cat "$run/nginx.pid")
workers=$(cat /proc/[0-9]*/stat 2>/dev/null | awk -v master="$master" '{ sub(/\(.*\)/, "x") } $4 == master { print $1 }')
old=$(cat "$run/edge-id")
# Old and new clients would have one name: those who come back would be sent away again and again.
if [ "$(setting ID)" = "$old" ]; then
    say "CARILLON_EDGE_ID=$old is set, and a reload needs a new name: nothing was changed"
    exit 1
fi
rm -rf "$run/old"
mkdir "$run/old"
cp -Rp "$run/nginx.conf" "$run/include" "$run/edge-id" "$run/old"
if ! sh "$here/render.sh" || ! "$(setting NGINX)" -t -q -p "$run" -c "$run/nginx.conf" -e stderr; then
    rm -rf "$run/include"
    mv "$run/old"/* "$run"
    say "nothing was changed"
    exit 1
fi
rm -r "$run/old"
kill -HUP "$master"
sleep 1
say_goodbye "$old" "$(setting DRAIN_TIMEOUT)" workers_are_gone
