{{/* A server that Forage uses, one copy of it (root, name), as its template says:
ports (name: number, first the one that Forage calls), health (port and path of its HTTP probe), file
and config (the name and content of its one file, in /etc/forage), data (its folder, if it keeps
anything), args, env, and from (which pods may reach it, and anyone the ports of `open`). */}}
{{- define "forage.dependency" -}}
{{- $root := .root -}}
{{- $values := index .root.Values .name -}}
{{- $part := include "forage.part" . -}}
{{- $selector := include "forage.dependencyLabels" . -}}
{{- with .config }}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $part }}
  labels:
    {{- $selector | nindent 4 }}
data:
  {{ $.file }}: |
    {{- . | trim | nindent 4 }}
---
{{- end }}
apiVersion: v1
kind: Service
metadata:
  name: {{ $part }}
  labels:
    {{- $selector | nindent 4 }}
spec:
  selector:
    {{- $selector | nindent 4 }}
  ports:
    {{- range $name, $port := .ports }}
    - {name: {{ $name }}, port: {{ $port }}, targetPort: {{ $name }}, protocol: TCP}
    {{- end }}
---
apiVersion: apps/v1
kind: {{ .data | empty | ternary "Deployment" "StatefulSet" }}
metadata:
  name: {{ $part }}
  labels:
    {{- $selector | nindent 4 }}
spec:
  replicas: 1
  {{- if .data }}
  serviceName: {{ $part }}
  podManagementPolicy: Parallel
  {{- end }}
  selector:
    matchLabels:
      {{- $selector | nindent 6 }}
  template:
    metadata:
      labels:
        {{- $selector | nindent 8 }}
      annotations:
        checksum/config: {{ .config | default "" | sha256sum }}
    spec:
      {{- include "forage.identity" $root | nindent 6 }}
      terminationGracePeriodSeconds: 60
      containers:
        - name: {{ .name }}
          image: {{ $values.image | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          {{- with .args }}
          args: {{ toJson . }}
          {{- end }}
          {{- with .env }}
          env:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            {{- range $name, $port := .ports }}
            - {name: {{ $name }}, containerPort: {{ $port }}, protocol: TCP}
            {{- end }}
            - {name: health, containerPort: {{ .health.port }}, protocol: TCP}
          startupProbe:
            httpGet: {path: {{ .health.path | quote }}, port: health}
            periodSeconds: 5
            failureThreshold: {{ divf $root.Values.startupSeconds 5 | ceil | int }}
          readinessProbe:
            httpGet: {path: {{ .health.path | quote }}, port: health}
            periodSeconds: 10
            timeoutSeconds: 5
          livenessProbe:
            httpGet: {path: {{ .health.path | quote }}, port: health}
            periodSeconds: 20
            timeoutSeconds: 5
            failureThreshold: 6
          securityContext:
            {{- toYaml $root.Values.securityContext | nindent 12 }}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- if .config }}
            - {name: config, mountPath: /etc/forage, readOnly: true}
            {{- end }}
            {{- with .data }}
            - {name: data, mountPath: {{ . }}}
            {{- end }}
      volumes:
        - {name: tmp, emptyDir: {}}
        {{- if .config }}
        - {name: config, configMap: {name: {{ $part }}}}
        {{- end }}
        {{- if and .data (not $root.Values.persistence.enabled) }}
        - {name: data, emptyDir: {}}
        {{- end }}
      {{- with include "forage.placement" $root | trim }}
      {{- . | nindent 6 }}
      {{- end }}
  {{- if and .data $root.Values.persistence.enabled }}
  volumeClaimTemplates:
    - metadata:
        name: data
        labels:
          {{- $selector | nindent 10 }}
      spec:
        accessModes:
          {{- toYaml $root.Values.persistence.accessModes | nindent 10 }}
        {{- with $root.Values.persistence.storageClassName }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ $values.size }}
  {{- end }}
{{- if $root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $part }}
  labels:
    {{- $selector | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- $selector | nindent 6 }}
  policyTypes: [Ingress]
  ingress:
    - from:
        {{- range .from }}
        - podSelector:
            matchLabels:
              {{- . | nindent 14 }}
        {{- end }}
    {{- with .open }}
    - ports:
        - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end -}}

{{/* What tells the pods of a dependency, a job or a test (root, name) from those of the services. */}}
{{- define "forage.dependencyLabels" -}}
app.kubernetes.io/name: {{ include "forage.name" .root }}-{{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: {{ include "forage.name" .root }}
{{- end -}}
