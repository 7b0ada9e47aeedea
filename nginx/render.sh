#!/bin/sh
# Writes Nginx's configuration from the CARILLON_EDGE_* variables into CARILLON_EDGE_RUN; docs/edge.md describes them.
# Needs sh, awk and od. `--table` prints the settings as docs/edge.md has them, `--get NAME` one that was checked.
set -eu
umask 077
# Patterns mean ASCII, whatever the machine speaks.
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)

awk_program() {
    awk -f "$here/settings.awk" -f "$here/render.awk" -v templates="$here" "$@"
}

case ${1-} in
--table)
    exec awk -f "$here/settings.awk" -f "$here/render.awk" -v action=--table
    ;;
--get)
    exec awk -f "$here/settings.awk" -f "$here/render.awk" -v action=--get -v wanted="$2"
    ;;
'') ;;
*)
    echo "edge: usage: render.sh [--table | --get NAME]" >&2
    exit 2
    ;;
esac

run=$(awk_program -v action=--get -v wanted=RUN)
nginx=$(awk_program -v action=--get -v wanted=NGINX)
include=$(awk_program -v action=--get -v wanted=INCLUDE)

if ! mkdir -p "$run/include" 2>/dev/null || ! [ -w "$run" ]; then
    echo "edge: CARILLON_EDGE_RUN=$run cannot be written" >&2
    exit 1
fi
rm -f "$run/draining" "$run"/include/*.conf

includes=
if [ -n "$include" ]; then
    for file in "$include"/http*.conf "$include"/server*.conf; do
        if [ -f "$file" ]; then
            includes="$includes$file
"
        fi
    done
fi

about=$("$nginx" -V 2>&1) || about=
version=$(printf '%s\n' "$about" | awk 'match($0, /nginx\/[0-9.]+/) { print substr($0, RSTART + 6, RLENGTH - 6); exit }')
case $about in
*--with-http_stub_status_module*) has_stub_status=1 ;;
*) has_stub_status=0 ;;
esac

# Started as root, Nginx would make its workers `nobody`, who cannot read a private folder.
user=
if [ "$(id -u)" = 0 ]; then
    user="user $(id -un) $(id -gn);"
fi

name=$(uname -n | awk '{ gsub(/[^A-Za-z0-9-]/, "-"); print substr($0, 1, 31) }')
random=$(od -An -N16 -tx1 /dev/urandom | awk '{ gsub(/ /, ""); printf "%s", $0 }')

export CARILLON_EDGE_LOCAL_INCLUDES="$includes"
# shellcheck disable=SC3045  # POSIX has no -H before 2024; dash, ash and bash do
awk_program -v action= -v found_version="$version" -v has_stub_status="$has_stub_status" -v user="$user" \
    -v new_id="$name-$random" -v hard_limit="$(ulimit -Hn)"
