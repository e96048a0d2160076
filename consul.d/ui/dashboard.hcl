# A link from each service in Consul's UI to what citadel says of it, for Consul 1.9 and newer: 1.8 refuses ui_config.
# Load it together with server.hcl, on the servers whose UI is used, and name an address of an orchestrator that browsers
# reach. With access control on, citadel answers only those who send a token, which a browser that follows a link does not.

ui_config {
  enabled = true

  dashboard_url_templates {
    service = "http://citadel-orchestrator.service.consul:8000/api/v1/orchestrator/health#{{Service.Name}}"
  }
}
