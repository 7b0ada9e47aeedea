{{/* What the schema cannot see: values that do not go together. All that is wrong at once, one line each. */}}
{{- define "carillon.check" -}}
{{- with regexReplaceAll "\n\n+" (include "carillon.wrong" . | trim) "\n" -}}
{{- fail (printf "\n%s\n" .) -}}
{{- end -}}
{{- end -}}

{{- define "carillon.wrong" -}}
{{ include "carillon.wrongPods" . }}
{{ include "carillon.wrongSecrets" . }}
{{ include "carillon.wrongScaling" . }}
{{ include "carillon.wrongNetwork" . }}
{{- end -}}

{{- define "carillon.wrongPods" -}}
{{- with .Values }}
{{- if not .image.repository }}
image.repository: needed: the name under which you pushed the gateway's image (docs/deploy.md begins with that)
{{- end }}
{{- if and .edge.enabled (not .edge.image.repository) }}
edge.image.repository: needed: the name under which you pushed the edge's image; or edge.enabled=false
{{- end }}
{{- range $name := list "gateway" "edge" }}
{{- $pods := index $.Values $name }}
{{- if and (regexMatch "^0%?$" (toString $pods.maxSurge)) (regexMatch "^0%?$" (toString $pods.maxUnavailable)) }}
{{ $name }}.maxSurge: with 0, and {{ $name }}.maxUnavailable 0, no pod could ever be replaced
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $labels := dict "commonLabels" .Values.commonLabels "gateway.podLabels" .Values.gateway.podLabels "edge.podLabels" .Values.edge.podLabels }}
{{- range $label := list "name" "instance" "component" }}
{{- if hasKey $labels (printf "app.kubernetes.io/%s" $label) }}
{{ $name }}: app.kubernetes.io/{{ $label }} is the chart's own: pods are found by it
{{- end }}
{{- end }}
{{- end }}
{{- $least := include "carillon.gatewayDrain" . | int | add 6 }}
{{- if lt (include "carillon.gatewayGrace" . | int) (int $least) }}
gateway.terminationGracePeriodSeconds: {{ .Values.gateway.terminationGracePeriodSeconds }} cuts the drain off: drain_delay + drain_timeout + 6 are {{ $least }}; 0 takes what is needed
{{- end }}
{{- $least := include "carillon.edgeDrain" . | int | add 5 }}
{{- if lt (include "carillon.edgeGrace" . | int) (int $least) }}
edge.terminationGracePeriodSeconds: {{ .Values.edge.terminationGracePeriodSeconds }} cuts the drain off: drain.delay + drain.timeout + 5 are {{ $least }}; 0 takes what is needed
{{- end }}
{{- end -}}

{{- define "carillon.wrongSecrets" -}}
{{- with .Values }}
{{- if not .secrets.existingSecret }}
secrets.existingSecret: needed: the name of a Secret with the keys {{ join ", " (compact (list .secrets.keys.tokenHmacSecret .secrets.keys.apiKeys (ternary "" .secrets.keys.redisUrl (or .valkey.enabled (ne .redis.url "") (ne .redis.existingSecret ""))))) }}; README.md has the command that makes it
{{- end }}
{{- if and .valkey.enabled (or .redis.url .redis.existingSecret) }}
valkey.enabled: the trial's own Valkey, or yours by redis.url or redis.existingSecret: not both
{{- else if and .redis.url .redis.existingSecret }}
redis.url: it is in the Secret redis.existingSecret, or here: not both
{{- end }}
{{- if and (hasPrefix "memory:" .redis.url) (or (include "carillon.autoscaled" $) (ne (mul .gateway.replicas .gateway.workers | int) 1)) }}
redis.url: memory:// reaches one process only: gateway.replicas=1, gateway.workers=1 and no autoscaling
{{- end }}
{{- if and .redis.ca.configMap .redis.ca.secret }}
redis.ca: the certificate is in configMap or in secret: not both
{{- end }}
{{- if and .edge.tls.enabled (not .edge.tls.existingSecret) }}
edge.tls.existingSecret: needed with edge.tls.enabled: the name of a Secret with tls.crt and tls.key
{{- end }}
{{- end }}
{{- end -}}

{{- define "carillon.wrongScaling" -}}
{{- with .Values }}
{{- if and .autoscaling.enabled .keda.enabled }}
keda.enabled: KEDA makes a HorizontalPodAutoscaler itself, and two would fight: autoscaling.enabled=false
{{- end }}
{{- if gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas) }}
autoscaling.minReplicas: {{ .autoscaling.minReplicas }} is above autoscaling.maxReplicas, {{ .autoscaling.maxReplicas }}
{{- end }}
{{- $most := mul (dig "max_connections" 0 .gateway.settings | int) .gateway.workers | int }}
{{- if and (include "carillon.autoscaled" $) (gt $most 0) (lt $most (int .autoscaling.connectionsPerPod)) }}
autoscaling.connectionsPerPod: {{ .autoscaling.connectionsPerPod }} is never reached: a pod takes {{ $most }} (max_connections of each worker) and refuses the rest
{{- end }}
{{- if and .keda.enabled (not .keda.serverAddress) }}
keda.serverAddress: needed with keda.enabled: the URL of Prometheus
{{- end }}
{{- end }}
{{- end -}}

{{- define "carillon.wrongNetwork" -}}
{{- with .Values }}
{{- if and .edge.proxyProtocol (not .edge.trusted) }}
edge.trusted: needed with edge.proxyProtocol: the networks of the load balancers whose word is believed
{{- end }}
{{- if and .ingress.enabled (not .ingress.hosts) }}
ingress.hosts: needed with ingress.enabled: the host names that lead here
{{- end }}
{{- if and .gatewayApi.enabled (not .gatewayApi.parentRefs) }}
gatewayApi.parentRefs: needed with gatewayApi.enabled: the Gateway that the route belongs to
{{- end }}
{{- if and .edge.proxyProtocol (or .ingress.enabled .gatewayApi.enabled) }}
edge.proxyProtocol: an Ingress or Gateway speaks HTTP to the edge, without a PROXY header: one of them only
{{- end }}
{{- if and .monitoring.rules.enabled (not .monitoring.baseUrl) }}
monitoring.baseUrl: needed with monitoring.rules.enabled: where runbooks/ and dashboards are to be read, for the links in alerts
{{- end }}
{{- if and .edge.enabled .gateway.publicService.enabled }}
gateway.publicService: with the edge, clients come through its Service: edge.service; or edge.enabled=false
{{- end }}
{{- if and (not .edge.enabled) (or .edge.tls.enabled .edge.exporter.enabled .edge.api) }}
edge.enabled: without the edge nothing does what edge.tls, edge.exporter and edge.api ask for
{{- end }}
{{- end }}
{{- end -}}
