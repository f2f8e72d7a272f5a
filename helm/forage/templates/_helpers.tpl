{{- define "forage.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "forage.fullname" -}}
{{- $name := include "forage.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "forage.selectorLabels" -}}
app.kubernetes.io/name: {{ include "forage.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "forage.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "forage.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "forage.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "forage.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "forage.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* Whether the cluster can probe over gRPC: on by default since Kubernetes 1.24. */}}
{{- define "forage.grpcProbes" -}}
{{- if semverCompare ">=1.24-0" .Capabilities.KubeVersion.Version }}true{{ end -}}
{{- end -}}

{{/* The port that one service (root, name, spec) listens on: the values', or else its file's. */}}
{{- define "forage.port" -}}
{{- $file := .root.Files.Get (printf "config/%s.yaml" .name) | fromYaml -}}
{{- $merged := mergeOverwrite $file (deepCopy .root.Values.config) (deepCopy (.spec.config | default dict)) -}}
{{- $port := dig "server" "port" 0 $merged | int -}}
{{- if not $port -}}
{{- fail (printf "services.%s: config.server.port is missing, and the chart has no config/%s.yaml that says it" .name .name) -}}
{{- end -}}
{{- $port -}}
{{- end -}}

{{/* Where the orchestrator finds the other containers of the pod (root). */}}
{{- define "forage.mesh" -}}
{{- $root := . -}}
{{- $file := .Files.Get "config/orchestrator.yaml" | fromYaml -}}
{{- $generators := dict -}}
{{- range $name, $_ := $file.generators -}}
{{- if not (hasKey $root.Values.services $name) }}{{ $_ := set $generators $name (dict "enabled" false) }}{{ end -}}
{{- end -}}
{{- $mesh := dict "generators" $generators -}}
{{- range $name, $spec := .Values.services -}}
{{- if ne $name "orchestrator" -}}
{{- $port := include "forage.port" (dict "root" $root "name" $name "spec" $spec) -}}
{{- $_ := set (eq $name "ranker" | ternary $mesh $generators) $name (dict "target" (printf "127.0.0.1:%s" $port)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $mesh -}}
{{- end -}}

{{/* What one service (root, name, spec) is told beyond its file, as a list of arguments: what the
chart decides, and over that what the values say. */}}
{{- define "forage.flags" -}}
{{- $server := dict "host" "0.0.0.0" "grace_ms" .root.Values.graceMs "drain_delay_ms" .root.Values.drainDelayMs -}}
{{- $settings := dict "server" $server "schema_file" "config/catalog.schema.yaml" -}}
{{- with .root.Values.telemetry.endpoint }}{{ $_ := set $settings "telemetry" (dict "endpoint" .) }}{{ end -}}
{{- if eq .name "orchestrator" -}}
{{- $settings = merge $settings (include "forage.mesh" .root | fromYaml) -}}
{{- else -}}
{{- $_ := set $server "drain_delay_ms" (add .root.Values.drainDelayMs .root.Values.graceMs) -}}
{{- end -}}
{{- $settings = mergeOverwrite $settings (deepCopy .root.Values.config) (deepCopy (.spec.config | default dict)) -}}
{{- include "forage.assignments" (dict "prefix" "" "value" $settings) -}}
{{- end -}}

{{/* The leaves of nested settings (prefix, value) as `--set NAME=VALUE`; values are JSON. */}}
{{- define "forage.assignments" -}}
{{- $prefix := .prefix -}}
{{- range $key, $value := .value -}}
{{- $name := printf "%s%s" $prefix $key -}}
{{- if kindIs "map" $value -}}
{{- include "forage.assignments" (dict "prefix" (printf "%s." $name) "value" $value) -}}
{{- else }}
- {{ printf "--set=%s=%s" $name (toJson $value) | replace "'" "''" | squote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* How a container is asked whether it serves (root, port). */}}
{{- define "forage.probe" -}}
{{- if include "forage.grpcProbes" .root -}}
grpc:
  port: {{ .port }}
{{- else -}}
exec:
  command: [python, check_health.py, {{ .port | quote }}]
{{- end }}
timeoutSeconds: 5
{{- end -}}
