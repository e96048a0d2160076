"""The application: all endpoints over one orchestrator and its Consul.

It keeps nothing: every answer is read from Consul, every request is written to it, each with the token of whoever
asks. That is why any orchestrator can serve it, leader or not, and why Consul's ACLs alone decide who may do what.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.middleware import Middleware

from citadel_consul import __version__
from citadel_consul.api import actions, operations, probes, problems, views
from citadel_consul.api.guard import Guard, known_hosts
from citadel_consul.api.manual import page
from citadel_consul.api.meter import Meter, MeteredApp
from citadel_consul.api.site import Site
from citadel_consul.consul.client import ConsulClient
from citadel_consul.orchestrator.orchestrator import Orchestrator

DESCRIPTION = (
    "Start, stop, watch and recover the services of a stack. Any orchestrator answers, leader or not. "
    "The API acts with the caller's Consul token (X-Consul-Token, or a bearer token)."
)


def create_app(
    client: ConsulClient,
    orchestrator: Orchestrator,
    *,
    metrics_enabled: bool = True,
    allowed_hosts: Iterable[str] = (),
) -> FastAPI:
    """The API of ``orchestrator``, over the Consul of ``client`` (whose own token it never lends to a caller).

    ``allowed_hosts`` are host names by which it is reached besides the one that it is bound to, its node's and the
    machine's name, ``localhost``, names of Consul's DNS, and addresses.
    """
    meter = Meter()
    config = orchestrator.config
    hosts = known_hosts(config.api, config.node, allowed_hosts)
    app = FastAPI(
        title=f"citadel: stack {config.stack}",
        description=DESCRIPTION,
        version=__version__,
        docs_url=None,
        redoc_url=None,
        responses={"default": problems.DESCRIPTION},
        generate_unique_id_function=lambda route: route.name,
        middleware=[Middleware(MeteredApp, meter=meter), Middleware(Guard, hosts=hosts)],
    )
    app.state.site = Site(client, orchestrator, meter)
    problems.install(app)
    app.include_router(views.router)
    app.include_router(actions.router)
    app.include_router(operations.router)
    app.include_router(probes.router)
    if metrics_enabled:
        app.include_router(probes.prometheus)
    app.add_api_route("/", _home, include_in_schema=False)
    app.add_api_route("/docs", _manual, include_in_schema=False)
    return app


async def _home() -> RedirectResponse:
    return RedirectResponse("/docs")


async def _manual(request: Request) -> HTMLResponse:
    return HTMLResponse(page(request.app.openapi(), str(request.base_url).rstrip("/")))
