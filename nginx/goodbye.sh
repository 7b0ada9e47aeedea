#!/bin/sh
# shellcheck disable=SC2034,SC2154  # read by scripts that use `run`
# Functions of drain.sh and reload.sh. Needs sh, awk, and curl or wget: the official images have one.
export LC_ALL=C

setting() {
    sh "$(dirname "$0")/render.sh" --get "$1"
}

say() {
    echo "edge: $*" >&2
}

now() {
    date +%s
}

# Asks every gateway for goodbyes to the sessions of edge $1 within $2 seconds, each second anew, until the command $3
# succeeds or the time is over. A second time reaches those whose handshake was under way, and where the broker, which
# tells all workers, is away, another worker of each pod.
say_goodbye() {
    end=$(($(now) + $2))
    : >"$run/told"
    post=$(http_client)
    if [ "$post" = true ]; then
        say "neither curl nor wget is here: the gateways are not told, and connections will be cut"
    fi
    while left=$((end - $(now))) && [ "$left" -gt 0 ]; do
        asked=0
        for gateway in $(gateways); do
            $post "http://$gateway/edges/$1/drain?window=$left" &
            asked=$((asked + 1))
            # Each takes 2 MB, and the edge is full of connections: hundreds at once could be its end.
            if [ $((asked % 16)) = 0 ]; then
                wait
            fi
        done
        wait
        sleep 1
        if $3; then
            break
        fi
    done
    if [ "$post" != true ] && ! [ -s "$run/told" ]; then
        say "no gateway of CARILLON_EDGE_INTERNAL_GATEWAYS took the call: who was connected got no goodbye"
    fi
}

http_client() {
    if command -v curl >/dev/null; then
        echo post_by_curl
    elif command -v wget >/dev/null; then
        echo post_by_wget
    else
        echo true
    fi
}

# A gateway that does not answer is asked again, or is gone with its sessions. That one has taken the call is kept in a
# file, as these run beside each other.
post_by_curl() {
    if curl --silent --fail --output /dev/null --noproxy '*' --request POST --max-time 2 "$1"; then
        echo yes >"$run/told"
    fi
}

post_by_wget() {
    # Not every wget has a timeout of its own.
    if no_proxy='*' timeout 2 wget -q -O /dev/null --post-data '' "$1" 2>/dev/null; then
        echo yes >"$run/told"
    fi
}

# The internal ports of all gateways: a name once for each of its addresses, where there is getent; else as it is. A DNS
# that is away must not take the whole time.
gateways() {
    for peer in $(setting INTERNAL_GATEWAYS | awk '{ gsub(/,/, " "); print }'); do
        host=${peer%:*}
        addresses=$(timeout 5 getent ahosts "$host" 2>/dev/null | awk '!seen[$1]++ { print ($1 ~ /:/ ? "[" $1 "]" : $1) }') || :
        for address in ${addresses:-$host}; do
            echo "$address:${peer##*:}"
        done
    done
}

# Whether no connection to our ports is established, as the kernel lists them. Those that wait for a next request count
# too: nobody tells them apart from here.
nobody_is_connected() {
    [ -r /proc/net/tcp ] || return 1
    count=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v one="$(setting PORT)" -v other="$(setting TLS_PORT)" '
        BEGIN { ours[sprintf("%04X", one)]; ours[sprintf("%04X", other)] }
        $4 == "01" && (substr($2, length($2) - 3) in ours) { count++ }
        END { print count + 0 }')
    [ "$count" = 0 ]
}
