#!/usr/bin/env bash
# Runs the tests of the Milvus engines against real servers, which the tests start on free loopback
# ports and stop by their process ids, and BM25 on Milvus Lite. Use: deploy/check_milvus.sh [pytest
# arguments]
#
# FORAGE_MILVUS_SERVER and FORAGE_MILVUS_SERVER_OLD name folders with PyPI's `milvus` to use instead:
# the server under test, and one too old to be accepted. Linux on x86-64; one server takes 0.3 to 1 GB.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
SERVER_VERSION=2.3.5
OLD_VERSION=2.2.16
CACHE=${FORAGE_MILVUS_CACHE:-.venv/milvus-server}

# Prints the folder of one version of the server, having installed it with pip if need be.
obtain() {
  local folder="$CACHE/$1"
  if [[ ! -f "$folder/milvus/__init__.py" ]]; then
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" \
      "milvus==$1" >&2
  fi
  realpath "$folder"
}

"$PYTHON" -c 'import pymilvus, milvus_lite' || {
  echo "check-milvus: the Milvus client is missing; install it with: pip install -e '.[semantic]'" >&2
  exit 1
}
command -v openssl > /dev/null || {
  echo "check-milvus: openssl is missing; the tests of TLS make certificates with it" >&2
  exit 1
}
FORAGE_MILVUS_SERVER=${FORAGE_MILVUS_SERVER:-$(obtain "$SERVER_VERSION")}
FORAGE_MILVUS_SERVER_OLD=${FORAGE_MILVUS_SERVER_OLD:-$(obtain "$OLD_VERSION")}
export FORAGE_MILVUS_SERVER FORAGE_MILVUS_SERVER_OLD
exec "$PYTHON" -m pytest -q tests/milvus "$@"
