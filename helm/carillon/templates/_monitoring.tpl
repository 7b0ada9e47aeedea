{{/* The names that the alerts go by: whose metrics, and which pod. The release's own, as two in a namespace would else be
one, and that one of them is away be hidden by the other. Takes (list $ component). */}}
{{- define "carillon.relabelings" -}}
- targetLabel: job
  replacement: {{ (index . 0).Release.Name }}/carillon-{{ index . 1 }}
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
