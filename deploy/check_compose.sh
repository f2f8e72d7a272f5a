#!/usr/bin/env bash
# check_compose.sh: builds the image, starts the seven containers in a project of their own, imports
# two films, searches through the published port's server, kills a generator and searches again,
# stops everything in good order, and removes it. Set COMPOSE_FILE to add override files.
set -euo pipefail
cd "$(dirname "$0")/.."
export COMPOSE_PROJECT_NAME=forage-check FORAGE_PUBLISH=${FORAGE_PUBLISH:-127.0.0.1:0}
services=(exploration graph lexical memory orchestrator ranker semantic)

fail() { echo "error: $*" >&2; exit 1; }
in_service() { docker compose exec -T "$@"; }
finds_the_film() { in_service orchestrator forage search 'clockwork orchard' --json | grep -q film:check-1; }
container() { docker compose ps -aq "$1"; }

trap 'docker compose down --volumes --timeout 20' EXIT
docker compose up --build --detach --wait

in_service orchestrator sh -c 'cat > /tmp/films.jsonl && forage import /tmp/films.jsonl --no-predict' <<'ROWS'
{"item_id": "film:check-1", "kind": "film", "attributes": {"title": ["The Clockwork Orchard"], "year": [1971]}}
{"item_id": "film:check-2", "kind": "film", "attributes": {"title": ["Night Train"], "year": [1959]}}
ROWS
finds_the_film || fail "the imported film is not found"

# The service is the only child of the container's init. Searches need not wait for its restart.
# shellcheck disable=SC2016
in_service lexical sh -c 'kill -KILL $(cat /proc/1/task/1/children)'
for _ in 1 2 3; do finds_the_film || fail "a search failed while lexical was down"; done
for _ in $(seq 60); do
  restarts=$(docker inspect --format '{{.RestartCount}}' "$(container lexical)")
  if [ "$restarts" -ge 1 ] && in_service lexical python check_health.py 7101 2> /dev/null; then break; fi
  sleep 1
done
in_service lexical python check_health.py 7101 || fail "lexical did not come back"

docker compose stop
for service in "${services[@]}"; do
  code=$(docker inspect --format '{{.State.ExitCode}}' "$(container "$service")")
  [ "$code" = 0 ] || fail "$service ended with status $code"
done
docker compose up --detach --wait
finds_the_film || fail "the film is lost after a restart"
echo "compose: seven services, import, search, kill, stop and restart are in order"
