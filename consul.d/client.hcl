# A Consul client, one on each node that runs services. Load it together with dns.hcl and telemetry.hcl, and with a
# file of your own that sorts after them (a later file wins):
#
#   retry_join = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
#   bind_addr  = "10.0.0.11"         # needed where a host has several private addresses
#   node_name  = "node-11"           # must be the node's name in the stack file

server      = false
data_dir    = "/opt/consul"
client_addr = "127.0.0.1"

# A node that is shut down on purpose leaves, so that nobody waits for its failure to be found out.
leave_on_terminate = true

# Registrations through the API may not bring script checks: who can register could run commands as Consul's user.
# Stacks with checks of the kind `script` need this to be true, on a loopback API and with ACLs.
enable_script_checks = false

limits {
  # The node agent keeps a few blocking queries open; the default of 200 is for whole hosts of clients.
  http_max_conns_per_client = 500
}

disable_update_check = true
