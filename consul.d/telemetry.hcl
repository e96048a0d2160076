# Metrics of Consul itself for Prometheus: /v1/agent/metrics?format=prometheus.
# A value is kept for the retention time; it must be more than twice the scrape interval.

telemetry {
  prometheus_retention_time = "5m"
  disable_hostname          = true
}
