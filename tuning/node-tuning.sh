#!/bin/sh
# Writes settings of a sysctl.d file into the kernel, and again every five minutes (kube-proxy writes one of them too):
# node-tuning.sh FILE.  One line for each setting that changes; what this kernel does not have, or does not let a node
# change that is a container itself (kind), is said and left out.
set -eu
file=$1
sys=${PROC_SYS:-/proc/sys}

apply() {
    while IFS='=' read -r name value; do
        case $name in '' | \#* | ' '*\#*) continue ;; esac
        path=$sys/$(echo "$name" | tr -d ' ' | tr . /)
        # shellcheck disable=SC2086  # words apart, with one space between them
        set -- $value
        wanted=$*
        if [ ! -e "$path" ]; then
            echo "$path is not there: left out"
            continue
        fi
        # shellcheck disable=SC2046
        set -- $(cat "$path")
        [ "$*" = "$wanted" ] && continue
        if (echo "$wanted" > "$path") 2> /dev/null; then
            echo "$path: $* -> $wanted"
        else
            echo "$path: $* stays, the kernel refuses $wanted: left out"
        fi
    done < "$file"
}

trap 'exit 0' TERM INT
while :; do
    apply
    [ -z "${ONCE:-}" ] || exit 0
    sleep 300 &
    wait $!
done
