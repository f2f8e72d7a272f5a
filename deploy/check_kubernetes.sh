#!/usr/bin/env bash
# check_kubernetes.sh: every example of the chart on a real API server: a server-side dry run, an
# install, an upgrade, an upgrade that the server refuses, a rollback, and an uninstall that leaves
# nothing but volumes. In a namespace of its own, which it removes.
#
# KUBECONFIG: the cluster; or FORAGE_KUBE_APISERVER: a kube-apiserver to start here, on loopback, with
# the etcd of the PATH. FORAGE_HELM, FORAGE_KUBECTL: the tools to use. With FORAGE_NODES=1 the cluster
# has nodes and the image: wait until Forage is ready, import the demo, and run `helm test`.
set -euo pipefail
cd "$(dirname "$0")/.."
helm=${FORAGE_HELM:-helm}
kubectl=${FORAGE_KUBECTL:-kubectl}
namespace=forage-check-$$
work=$(mktemp -d)
processes=()

finish() {
  local status=$?
  "$kubectl" delete namespace "$namespace" --wait=false > "$work/delete.log" 2>&1 || cat "$work/delete.log" >&2
  if [ ${#processes[@]} -gt 0 ]; then
    [ $status -eq 0 ] || tail -n 20 "$work/etcd.log" "$work/apiserver.log" >&2
    kill "${processes[@]}" 2> "$work/kill.log" || cat "$work/kill.log" >&2
    wait "${processes[@]}" || true
  fi
  rm -rf "$work"
  exit $status
}
trap finish EXIT

# An API server and nothing else: it checks and keeps manifests, but starts no pods.
start_server() {
  local etcd=http://127.0.0.1:${FORAGE_ETCD_PORT:-12379} peer=http://127.0.0.1:12380 port=16443
  openssl genrsa -out "$work/sa.key" 2048 2> "$work/openssl.log"
  echo 'check,admin,1,system:masters' > "$work/tokens.csv"
  etcd --data-dir "$work/etcd" --listen-client-urls "$etcd" --advertise-client-urls "$etcd" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
    --initial-cluster "default=$peer" > "$work/etcd.log" 2>&1 &
  processes+=($!)
  "$FORAGE_KUBE_APISERVER" --etcd-servers="$etcd" --bind-address=127.0.0.1 --secure-port=$port \
    --advertise-address=127.0.0.1 --endpoint-reconciler-type=none --cert-dir="$work/certs" \
    --token-auth-file="$work/tokens.csv" --authorization-mode=RBAC \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$work/sa.key" --service-account-signing-key-file="$work/sa.key" \
    --service-cluster-ip-range=127.96.0.0/16 > "$work/apiserver.log" 2>&1 &
  processes+=($!)
  cat > "$work/kubeconfig" <<KUBECONFIG
apiVersion: v1
kind: Config
clusters: [{name: check, cluster: {server: "https://127.0.0.1:$port", insecure-skip-tls-verify: true}}]
users: [{name: check, user: {token: check}}]
contexts: [{name: check, context: {cluster: check, user: check}}]
current-context: check
KUBECONFIG
  export KUBECONFIG=$work/kubeconfig
  for _ in $(seq 120); do
    "$kubectl" get --raw /readyz > "$work/ready.log" 2>&1 && return
    kill -0 "${processes[@]}" || { tail -20 "$work"/*.log >&2; return 1; }
    sleep 0.5
  done
  tail -20 "$work"/*.log >&2
  return 1
}

# define GROUP KIND PLURAL: the custom resource that an operator would bring, with any content.
define() {
  "$kubectl" apply -f - <<CRD
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: $3.$1
  annotations: {api-approved.kubernetes.io: "unapproved, for a check"}
spec:
  group: $1
  scope: Namespaced
  names: {kind: $2, plural: $3}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
CRD
  "$kubectl" wait --for=condition=Established --timeout=30s "customresourcedefinition/$3.$1"
}

in_namespace() {
  "$kubectl" --namespace "$namespace" "$@"
}

# What the server keeps of the chart's objects, without what it adds or counts itself.
kept() {
  in_namespace get "$kinds" --selector app.kubernetes.io/instance=forage --output json \
    | python3 -c '
import json, sys
found = [(i["kind"], i["metadata"]["name"], i["metadata"].get("labels"), i.get("spec"), i.get("data"))
         for i in json.load(sys.stdin)["items"] if i["kind"] != "Service"]
print(json.dumps(sorted(found, key=lambda f: f[:2]), sort_keys=True, indent=1))'
}

# check EXAMPLE: the whole life of a release with the example's values.
check() {
  local example=$1 options=(--namespace "$namespace" --values "helm/forage/examples/$1/values.yaml")
  local has
  has=$("$kubectl" api-versions)
  grep -q '^monitoring.coreos.com/v1$' <<< "$has" || options+=(--set serviceMonitor.enabled=false)
  grep -q '^gateway.networking.k8s.io/v1$' <<< "$has" || options+=(--set gateway.enabled=false)

  # Hooks want the installed rest. Helm 3's own --dry-run=server does not ask for the version.
  "$helm" template forage helm/forage "${options[@]}" --no-hooks --kube-version "$version" \
    --api-versions "$(paste -sd, <<< "$has")" 2> "$work/helm.log" \
    | in_namespace apply --dry-run=server -f - > "$work/dry.log" || { cat "$work"/{helm,dry}.log >&2; return 1; }
  "$helm" install forage helm/forage "${options[@]}" > "$work/helm.log" 2>&1 || { cat "$work/helm.log" >&2; return 1; }
  kept > "$work/installed"
  if [ -n "${FORAGE_NODES:-}" ] && [ "$example" = minimal ]; then
    in_namespace rollout status statefulset/forage --timeout=10m
    in_namespace exec forage-0 --container orchestrator -- forage import --demo
    "$helm" test forage --namespace "$namespace" --logs
  fi

  "$helm" upgrade forage helm/forage "${options[@]}" --set image.tag=next --set graceMs=9000 \
    --set-json config.feedback.like=0.9 > "$work/helm.log" 2>&1 || { cat "$work/helm.log" >&2; return 1; }
  kept > "$work/upgraded"
  cmp -s "$work/installed" "$work/upgraded" && { echo "the upgrade changed nothing" >&2; return 1; }
  for change in '"--set=feedback.like=0.9"' 'forage-mesh:next"'; do
    grep -qF -- "$change" "$work/upgraded" || { echo "not in the upgraded release: $change" >&2; return 1; }
  done

  # The chart refuses these values, and the server those: claims of a StatefulSet cannot change.
  if "$helm" upgrade forage helm/forage "${options[@]}" --set replicas=2 > "$work/helm.log" 2>&1; then
    echo "two pods were not refused" >&2
    return 1
  fi
  if "$helm" upgrade forage helm/forage "${options[@]}" --set persistence.enabled=true \
    --set persistence.size=3Gi > "$work/helm.log" 2>&1; then
    echo "a change of volume claims was not refused" >&2
    return 1
  fi
  "$helm" rollback forage 1 --namespace "$namespace" > "$work/helm.log" 2>&1 || { cat "$work/helm.log" >&2; return 1; }
  kept > "$work/rolled-back"
  diff "$work/installed" "$work/rolled-back"

  "$helm" uninstall forage --namespace "$namespace" > "$work/helm.log" 2>&1 || { cat "$work/helm.log" >&2; return 1; }
  [ "$(kept)" = "[]" ] || { kept >&2; echo "objects were left behind" >&2; return 1; }
  echo "$example: $(wc -l < "$work/dry.log") objects: dry run, install, upgrade, refused upgrades, rollback, uninstall"
}

if [ -z "${KUBECONFIG:-}" ] && [ -n "${FORAGE_KUBE_APISERVER:-}" ]; then
  start_server
  # An API server 1.20 that Debian's Go builds crashes on custom resources.
  if "$kubectl" get --raw /version | grep -qE '"minor": "(2[2-9]|[3-9].)'; then
    define monitoring.coreos.com ServiceMonitor servicemonitors
    define gateway.networking.k8s.io GRPCRoute grpcroutes
  fi
fi
"$kubectl" version
version=$("$kubectl" get --raw /version | python3 -c 'import json, sys; print(json.load(sys.stdin)["gitVersion"])')
"$kubectl" create namespace "$namespace"
kinds=statefulset,deployment,service,configmap,serviceaccount,networkpolicy,cronjob,ingress
kinds+=,poddisruptionbudget,horizontalpodautoscaler
for example in minimal bundled production replicas; do
  check "$example"
done
