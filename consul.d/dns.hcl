# Discovery by DNS: <service>.service.consul, and <tag>.<service>.service.consul.

dns_config {
  # An instance that warns is degraded, and is not handed out.
  only_passing = true

  # How long an answer may be cached. A drained or failed instance is gone from all answers after this time.
  node_ttl = "30s"
  service_ttl = {
    "*" = "1s"
  }

  # Answers come from any server, so DNS works while Consul has no leader. Old answers beat none.
  allow_stale = true
  max_stale   = "87600h"

  # More instances than Consul's default of 3 in one UDP answer. A longer list is marked as truncated, and clients
  # ask again by TCP.
  udp_answer_limit = 8
  enable_truncate  = true
}

# Where names outside of .consul are asked for; without it Consul answers for .consul alone.
# recursors = ["192.0.2.53"]
