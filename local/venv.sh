#!/bin/sh
# Makes a venv and installs a lock file into it:  venv.sh [--apt] run|test|load|fuzz|bench|audit
# A venv counts as made only by its stamp, which is written after the install. With --apt (root, Debian) a missing
# python3-venv is installed. The test lock is a superset of the run lock, so one .venv serves both. The servers that the
# benchmark compares with have .cache/bench/venv to themselves, what audits the locks has .cache/audit/venv.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "$*" >&2; exit 1; }

apt=no
[ "$1" = --apt ] && { apt=yes; shift; }
lock=$1
venv=.venv
case $lock in bench | audit) venv=.cache/$lock/venv ;; esac

in_range='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'
if [ -n "${PYTHON:-}" ]; then
    "$PYTHON" -c "$in_range" 2>/dev/null || fail "PYTHON=$PYTHON is not a working Python 3.11 to 3.14."
    python=$PYTHON
else
    for python in python3 python3.14 python3.13 python3.12 python3.11 none; do
        "$python" -c "$in_range" 2>/dev/null && break
    done
    [ "$python" != none ] || fail "Python 3.11 to 3.14 is needed and none was found; name one with: make PYTHON=/path/to/python"
fi

made_of="$("$python" -c 'import sys; print(sys.version.split()[0], sys.base_prefix)') $PWD"
stamp_of() { echo "$made_of $(cksum < "requirements/$1.txt")"; }
has() { [ "$(cat "$venv/.stamp-$1" 2>/dev/null)" = "$(stamp_of "$1")" ] && "$venv/bin/python" -c '' 2>/dev/null; }

make_venv() {
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m venv "$venv"
    elif command -v uv >/dev/null 2>&1; then
        uv venv --quiet --python "$python" "$venv"
    elif command -v virtualenv >/dev/null 2>&1; then
        virtualenv --quiet --python "$python" "$venv"
    else
        return 1
    fi
}

install() {
    echo "Installing requirements/$1.txt into $venv ..."
    if [ -x "$venv/bin/pip" ]; then
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
            --require-hashes --only-binary :all: -r "requirements/$1.txt"
    else
        uv pip install --python "$venv/bin/python" --require-hashes --only-binary :all: -r "requirements/$1.txt"
    fi || fail "The install failed; the lines above say why. Run the same command again to start over."
    stamp_of "$1" > "$venv/.stamp-$1"
}

has "$lock" && exit 0

if ! has run; then
    rm -rf "$venv"
    echo "Making $venv with $python ($("$python" -V)) ..."
    if ! make_venv; then
        rm -rf "$venv"
        package=python3-venv
        [ "$(python3 -V 2>/dev/null)" = "$("$python" -V)" ] || package="$(basename "$python")-venv"
        if [ "$apt" = yes ] && [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then
            echo "$python cannot make virtual environments: installing Debian's $package with apt ..."
            { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$package"; } \
                || fail "apt could not install $package."
            make_venv || fail "$python still cannot make virtual environments; install uv or virtualenv."
        else
            fail "$python cannot make virtual environments: install $package (Debian: apt install $package), uv or virtualenv."
        fi
    fi
fi
install "$lock"
if [ "$lock" = test ]; then stamp_of run > "$venv/.stamp-run"; fi
