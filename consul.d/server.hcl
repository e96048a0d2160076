# A Consul server, one of three. Load it together with dns.hcl and telemetry.hcl, and with a file of your own that
# sorts after them and says what differs from site to site (a later file wins):
#
#   retry_join = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
#   bind_addr  = "10.0.0.1"          # needed where a host has several private addresses
#
# It suits Consul 1.8 to 1.22. `ui` is the spelling that all of them accept; since 1.9 it is also called
# `ui_config { enabled = true }`, which 1.8 refuses.

server           = true
bootstrap_expect = 3
ui               = true

data_dir    = "/opt/consul"
client_addr = "127.0.0.1"

# Restarting a server must not change who the servers are: it leaves neither on SIGTERM nor on an interrupt.
leave_on_terminate      = false
skip_leave_on_interrupt = true

# Raft's own timing instead of the default's five times that: a lost Consul leader is replaced within seconds.
performance {
  raft_multiplier = 1
}

# A dead server that was replaced is dropped from the quorum.
autopilot {
  cleanup_dead_servers = true
}

# Operators of closed networks do not want their Consul to look for new versions.
disable_update_check = true
