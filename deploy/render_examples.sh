#!/usr/bin/env bash
# render_examples.sh DIRECTORY: renders helm/forage/examples into DIRECTORY/<example>/rendered.
# With helm/forage/examples as the DIRECTORY it renews the golden files.
set -euo pipefail
destination=$(realpath -m "${1:?directory}")
cd "$(dirname "$0")/.."
helm=${FORAGE_HELM:-helm}

render() {
  local example=$1 kubernetes=$2 work
  work=$(mktemp -d)
  "$helm" template forage helm/forage --namespace search --kube-version "$kubernetes" \
    --values "helm/forage/examples/$example/values.yaml" --output-dir "$work" > "$work/log" 2>&1 \
    || { cat "$work/log" >&2; rm -r "$work"; return 1; }
  rm -rf "$destination/$example/rendered"
  mkdir -p "$destination/$example"
  mv "$work/forage/templates" "$destination/$example/rendered"
  rm -r "$work"
}

# The oldest Kubernetes supported, which cannot probe over gRPC, and a recent one.
render minimal 1.20.2
render production 1.37.0
render replicas 1.37.0
