# Access control: nothing is allowed that no token allows. Load it on every server and client, before the cluster is
# bootstrapped (`consul acl bootstrap`), or with default_policy = "allow" while the tokens are handed out.
# The policies for citadel's own tokens are in acl/.

acl {
  enabled                  = true
  default_policy           = "deny"
  enable_token_persistence = true

  # While the servers cannot be asked, known tokens keep the rights they had: losing Consul stops nothing.
  down_policy = "extend-cache"
}
