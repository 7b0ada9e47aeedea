{{/* What objects are called, and by which labels they find each other. */}}

{{- define "carillon.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains "carillon" .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-carillon" .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Selectors cannot be changed later: nothing in them comes from values. Takes (list $ component). */}}
{{- define "carillon.selector" -}}
app.kubernetes.io/name: carillon
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of pods: without versions, so that a new version of the chart alone moves no client. Takes (list $ component). */}}
{{- define "carillon.podLabels" -}}
{{ include "carillon.selector" . }}
app.kubernetes.io/part-of: carillon
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of all other objects. Takes (list $ component). */}}
{{- define "carillon.labels" -}}
{{ include "carillon.podLabels" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Takes (list image defaultTag). */}}
{{- define "carillon.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end -}}
{{- end -}}

{{/* Where clients are led to: name of the Service. */}}
{{- define "carillon.frontService" -}}
{{ include "carillon.fullname" . }}-{{ ternary "edge" "gateway" .Values.edge.enabled }}
{{- end -}}

{{/* Its port, by name and number. */}}
{{- define "carillon.frontPortName" -}}
{{ ternary "http" "public" .Values.edge.enabled }}
{{- end -}}
{{- define "carillon.frontPort" -}}
{{ ternary 80 8000 .Values.edge.enabled }}
{{- end -}}

{{/* What that says about itself to a Gateway. */}}
{{- define "carillon.appProtocol" -}}
{{- if .Values.gatewayApi.enabled }}{{ .Values.gatewayApi.appProtocol }}{{ end -}}
{{- end -}}

{{- define "carillon.autoscaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled }}yes{{ end -}}
{{- end -}}
