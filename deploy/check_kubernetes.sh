#!/usr/bin/env bash
# check_kubernetes.sh: installs the chart's examples into the cluster of KUBECONFIG, first as a dry
# run of the server, and removes them again. FORAGE_HELM, FORAGE_KUBECTL: the tools to use. With
# FORAGE_NODES=1 the cluster has nodes and the image: wait until Forage is ready, and search.
set -euo pipefail
cd "$(dirname "$0")/.."
helm=${FORAGE_HELM:-helm}
kubectl=${FORAGE_KUBECTL:-kubectl}
namespace=forage-check-$$

"$kubectl" create namespace "$namespace"
trap '"$kubectl" delete namespace "$namespace" --wait=false' EXIT
for example in minimal production replicas; do
  values=helm/forage/examples/$example/values.yaml
  # --dry-run=server takes the cluster's version and APIs into account; hooks want the installed rest.
  "$helm" template forage helm/forage --namespace "$namespace" --values "$values" --no-hooks --dry-run=server \
    | "$kubectl" apply --namespace "$namespace" --dry-run=server -f -
  "$helm" install forage helm/forage --namespace "$namespace" --values "$values"
  if [ -n "${FORAGE_NODES:-}" ] && [ "$example" = minimal ]; then
    "$kubectl" --namespace "$namespace" rollout status statefulset/forage --timeout=10m
    "$helm" test forage --namespace "$namespace" --logs
  fi
  "$helm" uninstall forage --namespace "$namespace"
done
