{{/* The node's folder that has libnvidia-ml.so.1 in it; nothing if none is mounted. */}}
{{- define "observer.driver" -}}
{{- if .Values.gpu.enabled -}}
{{- if eq .Values.gpu.driver "operator" -}}
/run/nvidia
{{- else if eq .Values.gpu.driver "gke" -}}
/home/kubernetes/bin/nvidia
{{- else if eq .Values.gpu.driver "host" -}}
/usr
{{- else if eq .Values.gpu.driver "custom" -}}
{{- required "gpu.folder must name the host's folder with the driver's libraries, because gpu.driver is custom" .Values.gpu.folder -}}
{{- end -}}
{{- end -}}
{{- end -}}
