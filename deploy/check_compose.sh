#!/usr/bin/env bash
# check_compose.sh: builds the images and starts the whole stack of docker-compose.yml in a project of
# its own, which imports the demo; searches through the published port, sends feedback, reads trace
# and metrics back from Jaeger and Prometheus, kills a generator and searches on, stops everything in
# good order, starts it again and finds the data; then the same in short for compose.embedded.yaml.
# All is removed at the end. Use: deploy/check_compose.sh
#
# FORAGE_LOCAL_IMAGES=1 makes the images of deploy/compose/local.yaml instead of pulling others.
# FORAGE: the command line to search with. Two cores, 8 GB of memory and 4 GB of disk.
set -euo pipefail
cd "$(dirname "$0")/.."

FORAGE=${FORAGE:-.venv/bin/forage}
services=(exploration graph indexer lexical memory orchestrator ranker semantic)
embedded=(exploration graph lexical memory orchestrator ranker semantic)
export FORAGE_PUBLISH=127.0.0.1:0 FORAGE_JAEGER_PUBLISH=127.0.0.1:0 FORAGE_PROMETHEUS_PUBLISH=127.0.0.1:0
export COMPOSE_PATH_SEPARATOR=: COMPOSE_FILE=docker-compose.yml COMPOSE_PROJECT_NAME=forage-check
[ -z "${FORAGE_LOCAL_IMAGES:-}" ] || COMPOSE_FILE+=:deploy/compose/local.yaml

fail() { echo "error: $*" >&2; exit 1; }
say() { echo "check-compose, ${SECONDS} s: $*"; }
container() { docker compose ps --all --quiet "$1"; }
address() { docker compose port "$1" "$2"; }
forage() { "$FORAGE" "$@" --address "$(address orchestrator 7100)"; }
# Whether a search finds an item.
finds() {
  forage search "$1" --json |
    python3 -c 'import json, sys
sys.exit(sys.argv[1] not in (r["item"]["item_id"] for r in json.load(sys.stdin)["results"]))' "$2"
}

# Tries a command once a second, for as long as its first argument says.
until_true() {
  local end=$((SECONDS + $1)); shift
  until "$@"; do [ "$SECONDS" -lt "$end" ] || return 1; sleep 1; done
}

# The service is the only child of the container's init.
# shellcheck disable=SC2016
kill_service() { docker compose exec -T "$1" sh -c 'kill -KILL $(cat /proc/1/task/1/children)'; }
is_back() {
  [ "$(docker inspect --format '{{.RestartCount}}' "$(container "$1")")" -ge 1 ] \
    && docker compose exec -T "$1" python check_health.py "$2" 2> /dev/null
}
survives_a_kill() {
  kill_service lexical
  for _ in 1 2 3; do finds "$1" "$2" || fail "a search failed while lexical was down"; done
  until_true 90 is_back lexical 7101 || fail "lexical did not come back"
}
stops_in_good_order() {
  docker compose stop
  for service in "$@"; do
    code=$(docker inspect --format '{{.State.ExitCode}}' "$(container "$service")")
    [ "$code" = 0 ] || fail "$service ended with status $code"
  done
}

remove() {
  for file in "$COMPOSE_FILE" compose.embedded.yaml; do
    COMPOSE_FILE=$file docker compose down --volumes --timeout 20 --remove-orphans
  done
}

# Prints the services that a trace has spans of, as Jaeger knows it.
traced_services() {
  curl -fsS "http://$(address jaeger 16686)/api/traces/$1" |
    python3 -c 'import json, sys
for trace in json.load(sys.stdin)["data"]:
    print(*sorted(p["serviceName"] for p in trace["processes"].values()))'
}
trace_is_whole() {
  local found wanted
  found=$(traced_services "$1")
  for wanted in orchestrator lexical semantic graph memory exploration ranker; do
    [[ " $found " == *" forage-$wanted "* ]] || return 1
  done
}
prometheus_counts() {
  curl -fsS -G "http://$(address prometheus 9090)/api/v1/query" --data-urlencode "query=$1" |
    python3 -c 'import json, sys
sys.exit(not sum(float(r["value"][1]) for r in json.load(sys.stdin)["data"]["result"]))'
}

trap remove EXIT
remove
docker compose build
say "images built"
docker compose up --detach --wait
say "the stack is up, and the demo imported"
finds 'tom hanks' person:tom-hanks || fail "the demo cannot be searched"

read -r request trace item < <(forage search 'tom hanks space' --policy full --json | python3 -c 'import json, sys
found = json.load(sys.stdin)
print(found["request_id"], found["trace_id"], found["results"][0]["item"]["item_id"])')
forage feedback "$request" "$item" --kind play
until_true 30 trace_is_whole "$trace" || fail "the trace has only: $(traced_services "$trace")"
until_true 60 prometheus_counts 'forage_decisions_recorded_total' || fail "Prometheus has no decisions"
until_true 60 prometheus_counts 'forage_feedback_events_total' || fail "Prometheus has no feedback"
say "search, feedback, trace and metrics"

survives_a_kill 'tom hanks' person:tom-hanks
say "a killed generator came back, and searches went on"
stops_in_good_order "${services[@]}"
docker compose up --detach --wait
finds 'tom hanks' person:tom-hanks || fail "the catalogue is lost after a restart"
forage feedback "$request" "$item" --kind like || fail "the decision is lost after a restart"
docker compose logs --no-log-prefix import | grep -q 'nothing imported' || fail "the demo was imported twice"
say "stopped and started again with its data"
docker compose ps --quiet | xargs docker stats --no-stream --format '{{.Name}} {{.MemUsage}}'
docker compose down --volumes --timeout 20

COMPOSE_FILE=compose.embedded.yaml
docker compose up --detach --wait
docker compose exec -T orchestrator sh -c 'cat > /tmp/films.jsonl && forage import /tmp/films.jsonl --no-predict' <<'ROWS'
{"item_id": "film:check-1", "kind": "film", "attributes": {"title": ["The Clockwork Orchard"], "year": [1971]}}
{"item_id": "film:check-2", "kind": "film", "attributes": {"title": ["Night Train"], "year": [1959]}}
ROWS
finds 'clockwork orchard' 'film:check-1' || fail "embedded: the imported film is not found"
survives_a_kill 'clockwork orchard' 'film:check-1'
stops_in_good_order "${embedded[@]}"
docker compose up --detach --wait
finds 'clockwork orchard' 'film:check-1' || fail "embedded: the film is lost after a restart"
say "everything is in order, embedded too"
