{{/* Refuses values that contradict each other, naming them. */}}
{{- define "forage.check" -}}
{{- $nats := include "forage.nats" . -}}
{{- $milvus := include "forage.milvus" . -}}
{{- $telemetry := include "forage.telemetry" . -}}
{{- if not .Values.services.orchestrator -}}
{{- fail "services.orchestrator: cannot be left out, it is the one that clients call" -}}
{{- end -}}
{{- range $one := list
  (list (and .Values.nats.enabled .Values.nats.url) "nats.enabled and nats.url exclude each other: start a NATS server, or name your own")
  (list (and .Values.milvus.enabled .Values.milvus.uri) "milvus.enabled and milvus.uri exclude each other: start a Milvus server, or name your own")
  (list (and .Values.collector.enabled .Values.telemetry.endpoint) "collector.enabled and telemetry.endpoint exclude each other: start a collector, or name your own")
  (list (and .Values.jaeger.enabled .Values.collector.traces) "jaeger.enabled and collector.traces exclude each other: start a Jaeger, or name where traces go")
  (list (and .Values.jaeger.enabled (not .Values.collector.enabled)) "jaeger.enabled needs collector.enabled: services send traces and metrics to one address, and Jaeger takes no metrics")
  (list (and .Values.collector.traces (not .Values.collector.enabled)) "collector.traces needs collector.enabled")
  (list (and .Values.nats.enabled .Values.nats.tls.secret) "nats.tls is for your own server: that of nats.enabled has no TLS")
  (list (and .Values.milvus.enabled (or .Values.milvus.secret .Values.milvus.tls.secret)) "milvus.secret and milvus.tls are for your own server: that of milvus.enabled has no log-in and no TLS")
  (list (and .Values.nats.tls.secret (not (hasPrefix "tls://" $nats))) "nats.tls.secret needs a nats.url that begins with tls://")
  (list (and .Values.milvus.tls.secret (not (hasPrefix "https://" $milvus))) "milvus.tls.secret needs a milvus.uri that begins with https://")
  (list (and .Values.nats.secret (not $nats)) "nats.secret needs nats.url or nats.enabled")
  (list (and .Values.milvus.secret (not $milvus)) "milvus.secret needs milvus.uri")
  (list (and $milvus (not .Values.services.semantic)) "milvus.enabled and milvus.uri need services.semantic")
  (list (and $nats (ne (int .Values.replicas) 1)) "replicas is for the one pod without NATS; with it, say services.<name>.replicas")
  (list (and .Values.nats.enabled (gt (int (dig "nats" "replicas" 1 .Values.config)) 1)) "config.nats.replicas above 1 needs your own NATS cluster in nats.url: nats.enabled starts one server")
  (list (and .Values.serviceMonitor.enabled (not .Values.collector.enabled)) "serviceMonitor.enabled needs collector.enabled: services push their metrics, and only a collector can be scraped")
  (list (and .Values.serviceMonitor.enabled (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1"))) "serviceMonitor.enabled: the cluster has no monitoring.coreos.com/v1; install the Prometheus operator first")
  (list (and .Values.gateway.enabled (not (.Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1"))) "gateway.enabled: the cluster has no gateway.networking.k8s.io/v1; install the Gateway API first, or use ingress")
  (list (and .Values.train.enabled (not .Values.services.ranker)) "train.enabled needs services.ranker, whose settings it trains with")
  (list (and .Values.train.enabled (not $nats) (or (not .Values.persistence.enabled) (has "ReadWriteOncePod" .Values.persistence.accessModes))) "train.enabled without NATS needs persistence.enabled and the access mode ReadWriteOnce: the job opens the pod's volume on the same node")
-}}
{{- if first $one }}{{ fail (last $one) }}{{ end -}}
{{- end -}}
{{- range $name, $spec := .Values.services -}}
{{- $replicas := int ($spec.replicas | default 1) -}}
{{- if has $name (list "nats" "milvus" "collector" "jaeger" "train" "search" "inner" "headless") -}}
{{- fail (printf "services.%s: the chart uses this name itself" $name) -}}
{{- end -}}
{{- if and $spec.serves (not $nats) -}}
{{- fail (printf "services.%s.serves needs nats.url or nats.enabled; without NATS a service is one process" $name) -}}
{{- end -}}
{{- if and (not $nats) (or $spec.autoscaling (gt $replicas 1)) -}}
{{- fail (printf "services.%s: replicas and autoscaling need nats.url or nats.enabled; without NATS all services share one pod's event log" $name) -}}
{{- end -}}
{{- with $spec.autoscaling -}}
{{- if $spec.replicas -}}
{{- fail (printf "services.%s: replicas and autoscaling exclude each other" $name) -}}
{{- end -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "services.%s.autoscaling: minReplicas is above maxReplicas" $name) -}}
{{- end -}}
{{- if not (dig "requests" "cpu" "" ($spec.resources | default dict)) -}}
{{- fail (printf "services.%s.autoscaling: cpuPercent is of resources.requests.cpu, which is missing" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $all := dict "config" .Values.config -}}
{{- range $name, $spec := .Values.services }}{{ $_ := set $all (printf "services.%s.config" $name) ($spec.config | default dict) }}{{ end -}}
{{- range $where, $config := $all -}}
{{- if and $nats (hasKey $config "log_url") -}}
{{- fail (printf "%s.log_url: nats.url or nats.enabled says it already" $where) -}}
{{- end -}}
{{- if and $telemetry (dig "telemetry" "endpoint" "" $config) -}}
{{- fail (printf "%s.telemetry.endpoint: telemetry.endpoint or collector.enabled says it already" $where) -}}
{{- end -}}
{{- if and $milvus (ne $where "config") (ne $where "services.lexical.config") (dig "milvus" "uri" "" $config) -}}
{{- fail (printf "%s.milvus.uri: milvus.uri or milvus.enabled says it already" $where) -}}
{{- end -}}
{{- end -}}
{{- end -}}
