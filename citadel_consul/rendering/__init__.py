"""Rendering: from a service's spec to what Consul and the node agent are given.

``expansion`` fills in the Jinja strings of a spec, ``definition`` renders a service definition from ``templates/``,
``registration`` turns that definition into the body of Consul's agent API, ``files`` writes definitions for a plain
Consul agent, and ``policy`` renders the least-privilege ACL policies of ``consul.d/acl``.
"""
