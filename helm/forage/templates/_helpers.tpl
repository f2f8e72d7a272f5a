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

{{/* The newest API of a kind (root, group, new, since, old) that the cluster has. Both are asked, for
`helm template --kube-version` changes the version alone. */}}
{{- define "forage.api" -}}
{{- $new := printf "%s/%s" .group .new -}}
{{- if and (.root.Capabilities.APIVersions.Has $new) (semverCompare (printf ">=%s-0" .since) .root.Capabilities.KubeVersion.Version) -}}
{{ $new }}
{{- else -}}
{{ .group }}/{{ .old }}
{{- end -}}
{{- end -}}

{{/* Whether the cluster can probe over gRPC: on by default since Kubernetes 1.24. */}}
{{- define "forage.grpcProbes" -}}
{{- if semverCompare ">=1.24-0" .Capabilities.KubeVersion.Version }}true{{ end -}}
{{- end -}}

{{/* The port that one entry of services (root, name, spec) listens on: the values', or its file's. */}}
{{- define "forage.port" -}}
{{- $file := .spec.serves | empty | ternary (.root.Files.Get (printf "config/%s.yaml" .name)) "" | fromYaml -}}
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

{{/* The NATS server of the log: this release's, or the values'; empty: the log is a file. */}}
{{- define "forage.nats" -}}
{{- if .Values.nats.enabled -}}
nats://{{ include "forage.part" (dict "root" . "name" "nats") }}:4222
{{- else -}}
{{- .Values.nats.url -}}
{{- end -}}
{{- end -}}

{{/* The Milvus server, likewise; empty: Milvus Lite, in a file. */}}
{{- define "forage.milvus" -}}
{{- if .Values.milvus.enabled -}}
http://{{ include "forage.part" (dict "root" . "name" "milvus") }}:19530
{{- else -}}
{{- .Values.milvus.uri -}}
{{- end -}}
{{- end -}}

{{/* Where telemetry goes, likewise; empty: to files in the volume. */}}
{{- define "forage.telemetry" -}}
{{- if .Values.collector.enabled -}}
http://{{ include "forage.part" (dict "root" . "name" "collector") }}:4317
{{- else -}}
{{- .Values.telemetry.endpoint -}}
{{- end -}}
{{- end -}}

{{/* Where the orchestrator finds a service (root, name, port): in its own pod, or all its replicas. */}}
{{- define "forage.target" -}}
{{- if include "forage.nats" .root -}}
dns:///{{ include "forage.part" . }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}:{{ .port }}
{{- else -}}
127.0.0.1:{{ .port }}
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
{{- if not (or (eq $name "orchestrator") $spec.serves) -}}
{{- $port := include "forage.port" (dict "root" $root "name" $name "spec" $spec) -}}
{{- $_ := set (eq $name "ranker" | ternary $mesh $generators) $name (dict "target" (include "forage.target" (dict "root" $root "name" $name "port" $port))) -}}
{{- end -}}
{{- end -}}
{{- toYaml $mesh -}}
{{- end -}}

{{/* How a server's certificates (of: nats or milvus) become settings (root, of). */}}
{{- define "forage.tls" -}}
{{- with (index .root.Values .of).tls -}}
{{- if .secret -}}
{{- $folder := printf "tls/%s" $.of -}}
tls_ca_file: {{ $folder }}/ca.crt
{{- if .clientCertificate }}
tls_cert_file: {{ $folder }}/tls.crt
tls_key_file: {{ $folder }}/tls.key
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What one service (root, name, spec) is told beyond its file: what the chart decides, and over
that what the values say. A server of this release starts at the same time: a minute's patience. */}}
{{- define "forage.settings" -}}
{{- $values := .root.Values -}}
{{- $server := dict "host" "0.0.0.0" "grace_ms" $values.graceMs "drain_delay_ms" $values.drainDelayMs -}}
{{- $settings := dict "server" $server "schema_file" "config/catalog.schema.yaml" -}}
{{- with include "forage.telemetry" .root }}{{ $_ := set $settings "telemetry" (dict "endpoint" .) }}{{ end -}}
{{- $nats := include "forage.nats" .root -}}
{{- if $nats -}}
{{- $_ := set $settings "log_url" $nats -}}
{{- $_ := set $settings "nats" (include "forage.tls" (dict "root" .root "of" "nats") | fromYaml) -}}
{{- if $values.nats.enabled }}{{ $_ := set $settings.nats "connect_timeout_ms" 60000 }}{{ end -}}
{{- end -}}
{{- $milvus := include "forage.milvus" .root -}}
{{- if and $milvus (eq (.spec.serves | default .name) "semantic") -}}
{{- $_ := set $settings "milvus" (include "forage.tls" (dict "root" .root "of" "milvus") | fromYaml) -}}
{{- $_ := set $settings.milvus "uri" $milvus -}}
{{- if $values.milvus.enabled }}{{ $_ := set $settings.milvus "connect_timeout_ms" 60000 }}{{ end -}}
{{- end -}}
{{- if eq .name "orchestrator" -}}
{{- $settings = merge $settings (include "forage.mesh" .root | fromYaml) -}}
{{- else if not $nats -}}
{{- $_ := set $server "drain_delay_ms" (add $values.drainDelayMs $values.graceMs) -}}
{{- end -}}
{{- mergeOverwrite $settings (deepCopy $values.config) (deepCopy (.spec.config | default dict)) | toYaml -}}
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

{{/* How a container is asked whether it serves (root, port). Starting Python takes long on a starved
node, and that must not be the end of a service. */}}
{{- define "forage.probe" -}}
{{- if include "forage.grpcProbes" .root -}}
grpc:
  port: {{ .port }}
{{- else -}}
exec:
  command: [python, check_health.py, {{ .port | quote }}]
{{- end }}
timeoutSeconds: {{ include "forage.grpcProbes" .root | empty | not | ternary 5 20 }}
{{- end -}}

{{/* The same leaves as environment variables of a service (name, prefix, value). */}}
{{- define "forage.variables" -}}
{{- range $key, $value := .value -}}
{{- $name := printf "%s__%s" $.prefix (upper $key) -}}
{{- if kindIs "map" $value -}}
{{- include "forage.variables" (dict "prefix" $name "value" $value) -}}
{{- else }}
- {name: {{ $name }}, value: {{ toJson $value | quote }}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* How a service (root, name: the one served) logs in to NATS, and to Milvus: the keys of Secrets
that there are. */}}
{{- define "forage.logins" -}}
{{- $secrets := dict -}}
{{- if and (include "forage.nats" .root) .root.Values.nats.secret -}}
{{- $_ := set $secrets "nats" (list "user" "password" "token" "creds") -}}
{{- end -}}
{{- if and (eq .name "semantic") .root.Values.milvus.secret -}}
{{- $_ := set $secrets "milvus" (list "user" "password" "token") -}}
{{- end -}}
{{- range $of, $keys := $secrets }}
{{- range $key := $keys }}
- name: FORAGE_{{ upper $.name }}__{{ upper $of }}__{{ upper $key }}
  valueFrom:
    secretKeyRef:
      name: {{ (index $.root.Values $of).secret }}
      key: {{ $key }}
      optional: true
{{- end }}
{{- end }}
{{- end -}}

{{/* What a container of the image sees of the pod's volumes. */}}
{{- define "forage.mounts" -}}
volumeMounts:
  - name: data
    mountPath: /srv/forage/data
  - name: config
    mountPath: /srv/forage/config
    readOnly: true
  - name: tmp
    mountPath: /tmp
  {{- range $of := list "nats" "milvus" }}
  {{- if (index $.Values $of).tls.secret }}
  - name: {{ $of }}-tls
    mountPath: /srv/forage/tls/{{ $of }}
    readOnly: true
  {{- end }}
  {{- end }}
{{- end -}}

{{/* One service's container (root, name, spec). */}}
{{- define "forage.container" -}}
{{- $port := include "forage.port" (dict "root" .root "name" .name "spec" .spec) | int }}
{{- $serves := .spec.serves | default .name }}
{{- $probe := include "forage.probe" (dict "root" .root "port" $port) }}
- name: {{ .name }}
  image: {{ include "forage.image" .root | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - serve
    - {{ $serves }}
    {{- if .root.Files.Get (printf "config/%s.yaml" $serves) }}
    - --config=config/{{ $serves }}.yaml
    {{- end }}
    {{- include "forage.assignments" (dict "prefix" "" "value" (include "forage.settings" . | fromYaml)) | trim | nindent 4 }}
  {{- with include "forage.logins" (dict "root" .root "name" $serves) | trim }}
  env:
    {{- . | nindent 4 }}
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
    periodSeconds: {{ include "forage.grpcProbes" .root | empty | not | ternary 20 60 }}
    failureThreshold: 6
  securityContext:
    {{- toYaml .root.Values.securityContext | nindent 4 }}
  resources:
    {{- toYaml (.spec.resources | default dict) | nindent 4 }}
  {{- include "forage.mounts" .root | nindent 2 }}
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
  {{- range $of := list "nats" "milvus" }}
  {{- with (index $.Values $of).tls.secret }}
  - name: {{ $of }}-tls
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- end }}
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
{{- include "forage.api" (dict "root" . "group" "policy" "new" "v1" "since" "1.21" "old" "v1beta1") -}}
{{- end -}}
