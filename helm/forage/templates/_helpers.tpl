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

{{/* The name of what belongs to one service alone (root, name): at most 52 characters, for pods. */}}
{{- define "forage.part" -}}
{{- printf "%s-%s" (include "forage.fullname" .root | trunc 36 | trimSuffix "-") .name -}}
{{- end -}}

{{/* Where the orchestrator finds a service (root, name, port): in its own pod, or all its replicas. */}}
{{- define "forage.target" -}}
{{- if .root.Values.nats.url -}}
dns:///{{ include "forage.part" . }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}:{{ .port }}
{{- else -}}
127.0.0.1:{{ .port }}
{{- end -}}
{{- end -}}

{{/* Refuses values that contradict each other. */}}
{{- define "forage.check" -}}
{{- if not .Values.services.orchestrator -}}
{{- fail "services.orchestrator: cannot be left out, it is the one that clients call" -}}
{{- end -}}
{{- range $name, $spec := .Values.services -}}
{{- if and (not $.Values.nats.url) (or $spec.autoscaling (gt (int ($spec.replicas | default 1)) 1)) -}}
{{- fail (printf "services.%s: replicas and autoscaling need nats.url; without it all services share one pod's event log" $name) -}}
{{- end -}}
{{- if and $spec.autoscaling $spec.replicas -}}
{{- fail (printf "services.%s: replicas and autoscaling exclude each other" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where the orchestrator finds the other services (root). */}}
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
{{- $_ := set (eq $name "ranker" | ternary $mesh $generators) $name (dict "target" (include "forage.target" (dict "root" $root "name" $name "port" $port))) -}}
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
{{- with .root.Values.nats.url }}{{ $_ := set $settings "log_url" . }}{{ end -}}
{{- if eq .name "orchestrator" -}}
{{- $settings = merge $settings (include "forage.mesh" .root | fromYaml) -}}
{{- else if not .root.Values.nats.url -}}
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

{{/* One service's container (root, name, spec). */}}
{{- define "forage.container" -}}
{{- $port := include "forage.port" (dict "root" .root "name" .name "spec" .spec) | int }}
{{- $probe := include "forage.probe" (dict "root" .root "port" $port) }}
- name: {{ .name }}
  image: {{ include "forage.image" .root | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - serve
    - {{ .name }}
    {{- if .root.Files.Get (printf "config/%s.yaml" .name) }}
    - --config=config/{{ .name }}.yaml
    {{- end }}
    {{- include "forage.flags" (dict "root" .root "name" .name "spec" .spec) | trim | nindent 4 }}
  {{- if and .root.Values.nats.url .root.Values.nats.secret }}
  env:
    {{- range $key := list "user" "password" "token" "creds" }}
    - name: FORAGE_{{ upper $.name }}__NATS__{{ upper $key }}
      valueFrom:
        secretKeyRef:
          name: {{ $.root.Values.nats.secret }}
          key: {{ $key }}
          optional: true
    {{- end }}
  {{- end }}
  {{- with .root.Values.envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - name: {{ .name | trunc 15 | trimSuffix "-" }}
      containerPort: {{ $port }}
      protocol: TCP
  startupProbe:
    {{- $probe | nindent 4 }}
    periodSeconds: 5
    failureThreshold: {{ divf .root.Values.startupSeconds 5 | ceil | int }}
  readinessProbe:
    {{- $probe | nindent 4 }}
    periodSeconds: 10
  livenessProbe:
    {{- $probe | nindent 4 }}
    periodSeconds: 20
    failureThreshold: 6
  securityContext:
    {{- toYaml .root.Values.securityContext | nindent 4 }}
  resources:
    {{- toYaml (.spec.resources | default dict) | nindent 4 }}
  volumeMounts:
    - name: data
      mountPath: /srv/forage/data
    - name: config
      mountPath: /srv/forage/config
      readOnly: true
    - name: tmp
      mountPath: /tmp
{{- end -}}

{{/* As whom the pods run. */}}
{{- define "forage.identity" -}}
serviceAccountName: {{ include "forage.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{- define "forage.volumes" -}}
volumes:
  - name: config
    configMap:
      name: {{ include "forage.fullname" . }}
  - name: tmp
    emptyDir: {}
  {{- if not .Values.persistence.enabled }}
  - name: data
    emptyDir: {}
  {{- end }}
{{- end -}}

{{/* On which nodes the pods run. */}}
{{- define "forage.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The volume that every pod keeps. */}}
{{- define "forage.claims" -}}
{{- if .Values.persistence.enabled }}
volumeClaimTemplates:
  - metadata:
      name: data
      labels:
        {{- include "forage.selectorLabels" . | nindent 8 }}
    spec:
      accessModes:
        {{- toYaml .Values.persistence.accessModes | nindent 8 }}
      {{- with .Values.persistence.storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ .Values.persistence.size }}
{{- end }}
{{- end -}}

{{- define "forage.budgetVersion" -}}
{{ .Capabilities.APIVersions.Has "policy/v1" | ternary "policy/v1" "policy/v1beta1" }}
{{- end -}}
