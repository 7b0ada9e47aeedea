{{/* Names are resolved by any server that `networkPolicy.dns` names. */}}
{{- define "carillon.dnsEgress" -}}
- ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.dns }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* `helm test` signs a token and publishes: it needs both keys. */}}
{{- define "carillon.tested" -}}
{{- if and .Values.secrets.keys.tokenHmacSecret .Values.secrets.keys.apiKeys }}yes{{ end -}}
{{- end -}}

{{/* Where it connects: past the edge where that waits for a PROXY header, which only load balancers send. */}}
{{- define "carillon.testedPods" -}}
{{ ternary "edge" "gateway" (and .Values.edge.enabled (not .Values.edge.proxyProtocol)) }}
{{- end -}}

{{/* What load balancers of a cloud are told. Takes the values of a Service. */}}
{{- define "carillon.balancer" -}}
type: {{ .type }}
{{- with .loadBalancerClass }}
loadBalancerClass: {{ . }}
{{- end }}
{{- with .loadBalancerSourceRanges }}
loadBalancerSourceRanges:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .externalTrafficPolicy }}
externalTrafficPolicy: {{ . }}
{{- end }}
{{- end -}}
