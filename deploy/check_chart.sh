#!/usr/bin/env bash
# check_chart.sh: lints the chart, renders its examples and compares them with the golden files,
# asserts that they agree with the services' settings, validates them against the schemas of a current
# Kubernetes, and scans them for policies. The validators come from PyPI, into a folder of their own.
#
# FORAGE_HELM: the helm to use, if it is not on the PATH. FORAGE_CHART_TOOLS: the validators' folder.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
KUBERNETES=1.37.0
CHECKOV=3.3.30
tools=${FORAGE_CHART_TOOLS:-.venv/chart-tools}
export FORAGE_HELM=${FORAGE_HELM:-$(command -v helm || true)}
[ -x "$FORAGE_HELM" ] || { echo "no helm: put it on the PATH, or name it in FORAGE_HELM" >&2; exit 2; }

[ -x "$tools/bin/checkov" ] && [ -x "$tools/bin/kubernetes-validate" ] || {
  "$PYTHON" -m venv "$tools"
  "$tools/bin/python" -m pip install --quiet --disable-pip-version-check \
    "checkov==$CHECKOV" "kubernetes-validate==$KUBERNETES"
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$FORAGE_HELM" version --short
for example in helm/forage/examples/*/; do
  "$FORAGE_HELM" lint helm/forage --strict --quiet --values "$example/values.yaml" \
    --set serviceMonitor.enabled=false --set gateway.enabled=false
done
"$PYTHON" -m pytest -q tests/chart

# Examples for old clusters are rendered again, because their APIs are gone from current schemas.
# Custom resources have no schema here; the tests read those.
FORAGE_KUBERNETES=$KUBERNETES deploy/render_examples.sh "$work"
find "$work" -name '*.yaml' -exec "$tools/bin/kubernetes-validate" --strict --quiet {} +
echo "valid for Kubernetes $KUBERNETES: $(grep -rh '^kind:' "$work" | wc -l) manifests"

# What is not followed, and why:
# CKV_K8S_8, _9, CKV2_K8S_6   `helm test` is a pod that ends, and listens to nothing
# CKV_K8S_11                  no CPU limits: throttling would lengthen the slow tail
# CKV_K8S_15                  tags are versions, so they need not be pulled again
# CKV_K8S_21                  the namespace is Helm's to say
# CKV_K8S_35                  settings come from the environment, secret ones too
# CKV_K8S_43                  a digest is the user's to give: image.tag 0.1.0@sha256:...
"$tools/bin/checkov" --directory "$work" --framework kubernetes --skip-download --compact --quiet \
  --skip-check CKV_K8S_8,CKV_K8S_9,CKV2_K8S_6,CKV_K8S_11,CKV_K8S_15,CKV_K8S_21,CKV_K8S_35,CKV_K8S_43
echo "policies: nothing found"
