#!/usr/bin/env bash
# Installs the PostgreSQL server programs if they are missing. The tests start temporary clusters with them.
set -euo pipefail

if compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; then
    exit 0
fi
if command -v apt-get >/dev/null; then
    # Keep the package from creating and starting a system-wide cluster.
    sudo=''
    [ "$(id -u)" -eq 0 ] || sudo='sudo'
    $sudo mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo 'create_main_cluster = false' | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
"$(dirname "$0")/apt-install.sh" 'PostgreSQL with its server programs (initdb, postgres)' postgresql
