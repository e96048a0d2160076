"""The least-privilege ACL policies, rendered from ``consul.d/acl`` for one stack.

Consul's policies know no variables, and a rule cannot say ``citadel/*/observed/``: what a role may write lies
*under* its stack, so a policy can be narrow only once the stack (and for an agent, the node) is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from citadel_consul.core.model import Stack
from citadel_consul.core.names import RULE, is_label
from citadel_consul.errors import InvalidInput, Problem
from citadel_consul.rendering.environment import file_environment, render, template_errors

CONSUL_D = "consul.d"


class Role(StrEnum):
    """Who a policy is for."""

    OPERATOR = "operator"
    ORCHESTRATOR = "orchestrator"
    AGENT = "agent"
    READ_ONLY = "read-only"


def render_policy(role: Role, stack: str, node: str | None = None, services: Sequence[str] | None = None) -> str:
    """The rules of ``role`` for ``stack``, in HCL as Consul's API and ``consul acl policy create -rules`` take it.

    ``node`` is needed for an agent and is meaningless otherwise. ``services`` narrows what an agent may register
    to those names; with None it may register any service, so that a new one needs no new policy. Raises
    InvalidInput for names that are not labels, which also keeps them from breaking out of the HCL.
    """
    if (role is Role.AGENT) != (node is not None):
        raise InvalidInput.at("policy", "the agent's policy is for one node, and the others are for none")
    names = [stack, *([] if node is None else [node]), *(services or ())]
    wrong = [name for name in names if not is_label(name)]
    if wrong:
        raise InvalidInput(Problem("policy", f"{name!r} is not a name", RULE) for name in wrong)
    environment, _ = file_environment((), CONSUL_D)
    with template_errors(f"policy {role}"):
        template = environment.get_template(f"acl/{role}.hcl.j2")
        return render(template, {"stack": stack, "node": node, "services": services})


def policies_of(stack: Stack) -> Mapping[str, str]:
    """Every policy that ``stack`` needs, by the name to give it in Consul: one for each role, and one for each node.

    An agent's policy allows the services of its node and no others.
    """
    policies = {
        f"citadel-{stack.name}-{role}": render_policy(role, stack.name) for role in Role if role is not Role.AGENT
    }
    nodes = sorted({node for spec in stack.services.values() for node in spec.nodes})
    for node in nodes:
        services = sorted(spec.name for spec in stack.services.values() if node in spec.nodes)
        policies[f"citadel-{stack.name}-agent-{node}"] = render_policy(Role.AGENT, stack.name, node, services)
    return policies
