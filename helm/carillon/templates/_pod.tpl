{{/* What all pods of the chart have in common. Pod Security "restricted", and a read-only root on top. */}}

{{/* Takes (list $ user sysctls). */}}
{{- define "carillon.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ index . 1 }}
runAsGroup: {{ index . 1 }}
fsGroup: {{ index . 1 }}
seccompProfile:
  type: RuntimeDefault
{{- with index . 2 }}
sysctls:
  {{- range . }}
  - name: {{ .name }}
    value: {{ .value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "carillon.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where pods run; evenly over zones and nodes as far as it goes, pods of one version among themselves.
Takes (list $ component values). */}}
{{- define "carillon.placement" -}}
{{- $args := . -}}
{{- with index . 2 -}}
topologySpreadConstraints:
{{- if .topologySpreadConstraints }}
  {{- toYaml .topologySpreadConstraints | nindent 2 }}
{{- else }}
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "carillon.selector" $args | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with include "carillon.nodes" . }}
{{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Which nodes. Takes values. */}}
{{- define "carillon.nodes" -}}
{{- $nodes := dict -}}
{{- with .nodeSelector }}{{ $_ := set $nodes "nodeSelector" . }}{{ end -}}
{{- with .tolerations }}{{ $_ := set $nodes "tolerations" . }}{{ end -}}
{{- if $nodes }}{{ toYaml $nodes }}{{ end -}}
{{- end -}}

{{/* Start of a pod's spec: no variables of Services (N8). */}}
{{- define "carillon.podStart" -}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
