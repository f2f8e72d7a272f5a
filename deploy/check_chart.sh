#!/usr/bin/env bash
# check_chart.sh: lints the chart, compares its renders with the golden files, and validates those
# against the schemas of Kubernetes if kubernetes-validate is on the PATH. FORAGE_HELM: the helm to
# use; PYTHON: the interpreter with the test dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."
export FORAGE_HELM=${FORAGE_HELM:-$(command -v helm || true)}
[ -x "$FORAGE_HELM" ] || { echo "no helm: put it on the PATH, or name it in FORAGE_HELM" >&2; exit 2; }

"$FORAGE_HELM" lint helm/forage --strict --quiet
"${PYTHON:-python3}" -m pytest -q tests/chart
if command -v kubernetes-validate > /dev/null; then
  # 1.20's schemas are too old for the validator; its cluster is what check_kubernetes.sh is for.
  find helm/forage/examples -path '*/rendered/*' -name '*.yaml' -exec kubernetes-validate --strict --quiet {} +
else
  echo "kubernetes-validate is not on the PATH: manifests were not validated against its schemas"
fi
