#!/bin/sh
# Makes the secrets of compose.yaml, once: what is there already stays. The folder is yours alone; the files in it are
# readable, because a container reads them as a user that this machine does not know.
set -eu
cd "$(dirname "$0")/.."
umask 022
mkdir -p secrets
chmod 700 secrets
for name in token-hmac-secret api-keys grafana-password; do
    [ -s "secrets/$name" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "secrets/$name"
done
if ! grep -qs '^CARILLON_SECRETS=' .env; then
    # A last line without its end would swallow ours.
    [ ! -s .env ] || [ -z "$(tail -c 1 .env)" ] || echo >> .env
    echo 'CARILLON_SECRETS=./secrets' >> .env
fi
echo "The secrets are in ./secrets, and .env names it: docker compose up --wait"
