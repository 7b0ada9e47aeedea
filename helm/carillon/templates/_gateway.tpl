{{/* What gateways are told: settings, the file with namespaces, and how long their end may take. */}}

{{/* Settings as the gateway gets them, with what follows from other values. */}}
{{- define "carillon.settings" -}}
{{- $settings := deepCopy .Values.gateway.settings -}}
{{- if and (include "carillon.autoscaled" .) (not (hasKey $settings "connection_max_age")) -}}
{{- /* Else new pods stay empty: clients stay where they are. */ -}}
{{- $_ := set $settings "connection_max_age" 14400 -}}
{{- end -}}
{{- toJson $settings -}}
{{- end -}}

{{/* One setting's value, as an environment variable holds it. */}}
{{- define "carillon.settingText" -}}
{{- if kindIs "slice" . -}}
{{ join "," . }}
{{- else if kindIs "string" . -}}
{{ . }}
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end -}}

{{/* Data of the ConfigMap. */}}
{{- define "carillon.gatewayData" -}}
{{- range $name, $value := include "carillon.settings" . | fromJson }}
CARILLON_{{ upper $name }}: {{ include "carillon.settingText" $value | quote }}
{{- end }}
CARILLON_CONFIG: /etc/carillon/carillon.toml
{{- with .Values.secrets.keys.tokenHmacSecret }}
CARILLON_TOKEN_HMAC_SECRET_FILE: /etc/carillon/secrets/{{ . }}
{{- end }}
{{- with .Values.secrets.keys.apiKeys }}
CARILLON_API_KEYS_FILE: /etc/carillon/secrets/{{ . }}
{{- end }}
WEB_CONCURRENCY: {{ .Values.gateway.workers | quote }}
{{- end -}}

{{/* The file of CARILLON_CONFIG. Helm's own toToml makes 1000.0 of 1000; a JSON scalar is a TOML scalar. */}}
{{- define "carillon.toml" -}}
# Options of rooms by prefix; all other settings are environment variables.
{{- range $name, $options := .Values.gateway.namespaces }}

[namespaces.{{ $name }}]
{{- range $option, $value := $options }}
{{ $option }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{ end -}}

{{/* Seconds that a drain takes. */}}
{{- define "carillon.gatewayDrain" -}}
{{- $settings := .Values.gateway.settings -}}
{{- addf (dig "drain_delay" 0 $settings) (dig "drain_timeout" 10 $settings) | ceil | int -}}
{{- end -}}

{{/* N5: each clock longer than the one inside. The application refuses less than 6 seconds above its drain. */}}
{{- define "carillon.gatewayGrace" -}}
{{- .Values.gateway.terminationGracePeriodSeconds | int | default (include "carillon.gatewayDrain" . | int | add 15) -}}
{{- end -}}

{{- define "carillon.edgeDrain" -}}
{{- addf .Values.edge.drain.delay .Values.edge.drain.timeout | ceil | int -}}
{{- end -}}

{{- define "carillon.edgeGrace" -}}
{{- .Values.edge.terminationGracePeriodSeconds | int | default (include "carillon.edgeDrain" . | int | add 15) -}}
{{- end -}}

{{/*
spec.replicas where something else sets it: nothing, but for two cases in which leaving it out would drop the fleet to 1.
- Helm (server-side apply) still owns the field, because autoscaling has only now been turned on: the live number, until
  the autoscaler has changed it and so owns it.
- Releases that Helm applies on the client's side: always the live number, as a field that is gone from the manifest is
  taken back to its default.
*/}}
{{- define "carillon.liveReplicas" -}}
{{- $live := lookup "apps/v1" "Deployment" .Release.Namespace (printf "%s-gateway" (include "carillon.fullname" .)) -}}
{{- if $live -}}
{{- $applied := false -}}
{{- $owned := false -}}
{{- range $live.metadata.managedFields -}}
{{- $spec := dig "fieldsV1" "f:spec" dict . -}}
{{- if and (eq .operation "Apply") (not .subresource) -}}
{{- /* Only the manager of a release sends the selector; others may apply a label or two. */ -}}
{{- $applied = or $applied (hasKey $spec "f:selector") -}}
{{- $owned = or $owned (hasKey $spec "f:replicas") -}}
{{- end -}}
{{- end -}}
{{- if or $owned (not $applied) -}}
replicas: {{ $live.spec.replicas }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The broker's URL as a variable: from the Secret, as it may hold a password. */}}
{{- define "carillon.redisUrl" -}}
- name: CARILLON_REDIS_URL
{{- if .Values.valkey.enabled }}
  value: redis://{{ include "carillon.fullname" . }}-valkey:6379
{{- else if .Values.redis.url }}
  value: {{ .Values.redis.url | quote }}
{{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ .Values.redis.existingSecret | default .Values.secrets.existingSecret }}
      key: {{ .Values.secrets.keys.redisUrl }}
{{- end }}
{{- end -}}

{{/* File, secrets and Redis' authority: one volume, as mounts inside of a read-only mount are trouble. */}}
{{- define "carillon.configVolume" -}}
- name: config
  projected:
    defaultMode: 0440
    sources:
      - configMap:
          name: {{ include "carillon.fullname" . }}-gateway-file
      {{- with .Values.secrets }}
      {{- if or .keys.tokenHmacSecret .keys.apiKeys }}
      - secret:
          name: {{ .existingSecret }}
          items:
            {{- range compact (list .keys.tokenHmacSecret .keys.apiKeys) }}
            - key: {{ . }}
              path: secrets/{{ . }}
            {{- end }}
      {{- end }}
      {{- end }}
      {{- with .Values.redis.ca }}
      {{- if or .configMap .secret }}
      - {{ ternary "secret" "configMap" (not .configMap) }}:
          name: {{ .configMap | default .secret }}
          items:
            - key: {{ .key }}
              path: redis-ca/ca.crt
      {{- end }}
      {{- end }}
{{- end -}}
