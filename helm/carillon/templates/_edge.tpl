{{/* What the edge is told; docs/edge.md says what each means. */}}
{{- define "carillon.edgeData" -}}
{{- $edge := .Values.edge -}}
CARILLON_EDGE_RESOLVE: "1"
CARILLON_EDGE_RESOLVER: {{ $edge.resolver | quote }}
CARILLON_EDGE_RESOLVER_IPV6: {{ ternary "1" "0" $edge.resolverIpv6 | quote }}
{{- if $edge.include }}
CARILLON_EDGE_INCLUDE: /etc/carillon/include
{{- end }}
CARILLON_EDGE_BALANCE: {{ $edge.balance }}
CARILLON_EDGE_PORT: "8080"
CARILLON_EDGE_TLS_PORT: {{ ternary "8443" "0" $edge.tls.enabled | quote }}
CARILLON_EDGE_CERTIFICATES: /etc/carillon/tls
CARILLON_EDGE_STATUS_PORT: "8081"
CARILLON_EDGE_PROXY_PROTOCOL: {{ ternary "1" "0" $edge.proxyProtocol | quote }}
CARILLON_EDGE_TRUSTED: {{ join "," $edge.trusted | quote }}
CARILLON_EDGE_ADDRESS_CONNECTIONS: {{ toJson $edge.limits.addressConnections | quote }}
CARILLON_EDGE_ADDRESS_RATE: {{ toJson $edge.limits.addressRate | quote }}
CARILLON_EDGE_ADDRESS_BURST: {{ toJson $edge.limits.addressBurst | quote }}
CARILLON_EDGE_API: {{ ternary "1" "0" $edge.api | quote }}
CARILLON_EDGE_DRAIN_DELAY: {{ toJson $edge.drain.delay | quote }}
CARILLON_EDGE_DRAIN_TIMEOUT: {{ toJson $edge.drain.timeout | quote }}
CARILLON_EDGE_WORKERS: {{ toJson $edge.workers | quote }}
CARILLON_EDGE_CONNECTIONS: {{ toJson $edge.connections | quote }}
{{- end -}}
