{{/* What the schema cannot see: values that do not go together. All that is wrong at once, one line each. */}}
{{- define "carillon.check" -}}
{{- $wrong := include "carillon.wrong" . | trim -}}
{{- if $wrong -}}
{{- fail (printf "\n%s" $wrong) -}}
{{- end -}}
{{- end -}}

{{- define "carillon.wrong" -}}
{{- with .Values -}}
{{- if not .image.repository }}
image.repository: needed: the name under which you pushed the gateway's image (docs/deploy.md begins with that)
{{- end }}
{{- if and .edge.enabled (not .edge.image.repository) }}
edge.image.repository: needed: the name under which you pushed the edge's image; or set edge.enabled=false
{{- end }}
{{- if not .secrets.existingSecret }}
secrets.existingSecret: needed: the name of a Secret with {{ join ", " (compact (list .secrets.keys.tokenHmacSecret .secrets.keys.apiKeys (ternary "" .secrets.keys.redisUrl (or .valkey.enabled (ne .redis.url "") (ne .redis.existingSecret ""))))) }}: kubectl create secret generic (README.md has the command)
{{- end }}
{{- end }}
{{- end -}}
