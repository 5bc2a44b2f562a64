#!/usr/bin/env bash
# The tests start throw-away PostgreSQL clusters from installed binaries: installs them where they are missing.
set -euo pipefail

if compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo 'The tests need the PostgreSQL server programs (initdb, postgres). Install PostgreSQL and try again.' >&2
    exit 1
fi
sudo=''
if [ "$(id -u)" -ne 0 ]; then
    sudo='sudo'
fi
# No cluster of the system's own is wanted.
$sudo mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] ||
    echo 'create_main_cluster = false' | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq postgresql
