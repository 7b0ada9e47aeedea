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

{{/* Where pods run: evenly over nodes and zones as far as it goes, pods of one version among themselves.
Takes (list $ component values). */}}
{{- define "carillon.placement" -}}
{{- $args := . -}}
{{- with index . 2 -}}
topologySpreadConstraints:
{{- if .topologySpreadConstraints }}
  {{- toYaml .topologySpreadConstraints | nindent 2 }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    {{- include "carillon.ofOneVersion" $args | nindent 4 }}
{{- end }}
affinity:
{{- if .affinity }}
  {{- toYaml .affinity | nindent 2 }}
{{- else }}
  # Zones are no second constraint: the scheduler spreads nothing over nodes that lack the label of any.
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: topology.kubernetes.io/zone
          {{- include "carillon.ofOneVersion" $args | nindent 10 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with include "carillon.nodes" . }}
{{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Pods that count: during a roll the old ones do not. Takes (list $ component ...). */}}
{{- define "carillon.ofOneVersion" -}}
labelSelector:
  matchLabels:
    {{- include "carillon.selector" . | nindent 4 }}
matchLabelKeys: [pod-template-hash]
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
