#!/usr/bin/env bash
# render_examples.sh DIRECTORY: renders helm/forage/examples into DIRECTORY/<example>/rendered.
# With helm/forage/examples as the DIRECTORY it renews the golden files. FORAGE_HELM: the helm to use.
# FORAGE_KUBERNETES: the version to render all examples for, instead of each one's own.
set -euo pipefail
destination=$(realpath -m "${1:?directory}")
cd "$(dirname "$0")/.."
helm=${FORAGE_HELM:-helm}

# render EXAMPLE KUBERNETES [API...]: the APIs are those that a cluster has by installing something.
render() {
  local example=$1 kubernetes=${FORAGE_KUBERNETES:-$2} work
  shift 2
  work=$(mktemp -d)
  "$helm" template forage helm/forage --namespace search --kube-version "$kubernetes" \
    "${@/#/--api-versions=}" --values "helm/forage/examples/$example/values.yaml" \
    --output-dir "$work" > "$work/log" 2>&1 \
    || { cat "$work/log" >&2; rm -r "$work"; return 1; }
  rm -rf "$destination/$example/rendered"
  mkdir -p "$destination/$example"
  mv "$work/forage/templates" "$destination/$example/rendered"
  rm -r "$work"
}

# The oldest Kubernetes supported, which has the fewest APIs and cannot probe over gRPC, and a recent
# one.
render minimal 1.20.2
render bundled 1.20.2 monitoring.coreos.com/v1
render production 1.37.0
render replicas 1.37.0 gateway.networking.k8s.io/v1
