#!/bin/sh
# The edge's start: renders the configuration, then becomes Nginx.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
sh "$here/render.sh"
run=$(sh "$here/render.sh" --get RUN)
nginx=$(sh "$here/render.sh" --get NGINX)
exec "$nginx" -p "$run" -c "$run/nginx.conf" -e stderr -g 'daemon off;'
