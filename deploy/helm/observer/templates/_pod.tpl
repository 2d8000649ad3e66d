{{/* What the pods of both roles have in common. Each takes the root. */}}
{{- define "observer.pod" -}}
automountServiceAccountToken: true
# Variables such as OBSERVER_AGENT_PORT would look like configuration.
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "observer.env" -}}
- name: OBSERVER_CONFIG
  value: /etc/observer/observer.toml
# A folder of its own in the volume, which belongs to whoever runs.
- name: OBSERVER_STORE_PATH
  value: /var/lib/observer/store
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- if .Values.api.tokenSecret.name }}
- name: OBSERVER_API_TOKEN_FILE
  value: /var/run/secrets/observer/token
{{- end }}
{{- if .Values.api.kubernetes }}
- name: OBSERVER_API_KUBERNETES
  value: "true"
{{- end }}
{{- if .Values.tls.secretName }}
- name: OBSERVER_TLS_LISTEN
  value: 0.0.0.0:9843
- name: OBSERVER_TLS_CERT_FILE
  value: /var/run/secrets/observer-tls/tls.crt
- name: OBSERVER_TLS_KEY_FILE
  value: /var/run/secrets/observer-tls/tls.key
- name: OBSERVER_TLS_CA_FILE
  value: /var/run/secrets/observer-tls/ca.crt
{{- end }}
{{- end -}}

{{- define "observer.serving" -}}
ports:
  - name: http
    containerPort: 9842
  {{- if .Values.tls.secretName }}
  - name: https
    containerPort: 9843
  {{- end }}
livenessProbe:
  httpGet:
    path: /healthz
    port: http
  periodSeconds: 20
  timeoutSeconds: 5
readinessProbe:
  httpGet:
    path: /readyz
    port: http
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{- define "observer.mounts" -}}
- name: config
  mountPath: /etc/observer
  readOnly: true
# What is kept of what happened.
- name: store
  mountPath: /var/lib/observer
{{- if .Values.api.tokenSecret.name }}
- name: token
  mountPath: /var/run/secrets/observer
  readOnly: true
{{- end }}
{{- if .Values.tls.secretName }}
- name: tls
  mountPath: /var/run/secrets/observer-tls
  readOnly: true
{{- end }}
{{- end -}}

{{- define "observer.volumes" -}}
- name: config
  configMap:
    name: {{ include "observer.name" . }}
{{- with .Values.api.tokenSecret }}
{{- if .name }}
- name: token
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: token
{{- end }}
{{- end }}
{{- with .Values.tls.secretName }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- /* Lines are kept by one who knows who sends them. */}}
{{- define "observer.checkLogs" -}}
{{- if .Values.cluster.logs.enabled }}
{{- if not (or .Values.api.tokenSecret.name .Values.tls.secretName) }}
{{- fail "cluster.logs.enabled: agents show the cluster role who they are; name a Secret in api.tokenSecret.name or tls.secretName" }}
{{- end }}
{{- if gt (int .Values.cluster.replicas) 1 }}
{{- fail "cluster.logs.enabled: each replica would keep some of the lines; set cluster.replicas to 1" }}
{{- end }}
{{- end }}
{{- end -}}
