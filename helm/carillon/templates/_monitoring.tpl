{{/* The names that the alerts go by: whose metrics, and which pod. */}}
{{- define "carillon.relabelings" -}}
- targetLabel: job
  replacement: carillon-{{ . }}
- sourceLabels: [__meta_kubernetes_pod_name]
  targetLabel: instance
{{- end -}}

{{/* The alerts of monitoring/, with addresses in place of paths. */}}
{{- define "carillon.rules" -}}
{{- $base := trimSuffix "/" .Values.monitoring.baseUrl -}}
{{- $rules := .Files.Get "files/rules/carillon.yaml" | fromYaml -}}
{{- range $group := $rules.groups -}}
{{- range $rule := $group.rules -}}
{{- range $name := list "runbook_url" "dashboard_url" -}}
{{- with dig "annotations" $name "" $rule -}}
{{- $_ := set $rule.annotations $name (printf "%s/%s" $base .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $rules -}}
{{- end -}}
