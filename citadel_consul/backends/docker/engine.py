"""The Docker engine, by its HTTP API.

Spoken over ``httpx``, which citadel uses anyway: ten calls of an API that has been stable for years. The asynchronous
client library (aiodocker 0.27) would bring a second HTTP stack with a dozen compiled packages onto every node, and its
stream of events ends in the same way whether the engine ended it, broke off or never answered, which is what matters
here. The address is that of the docker command line: ``DOCKER_HOST`` (with ``DOCKER_TLS_VERIFY`` and
``DOCKER_CERT_PATH``), or the socket of the machine.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx

from citadel_consul.backends.docker.container import ONE_OFF_LABEL, PROJECT_LABEL, SERVICE_LABEL, Container, decode
from citadel_consul.errors import BackendError, BackendUnavailable

DEFAULT_HOST = "unix:///var/run/docker.sock"
ANSWER_SECONDS = 15.0
# Fifty containers that start at once take a small machine half a minute, and each has to wait for the others.
START_SECONDS = 180.0

# Ends a connection whose other side has vanished without a word within about 15 seconds.
_KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
]
_SCHEMES = ("unix", "tcp", "http", "https")


class EngineRefusedError(Exception):
    """The engine answered, and the answer is no. ``status`` is the HTTP status; the text is the engine's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a container. ``exit_code`` comes with ``die``."""

    action: str
    container: str
    exit_code: int | None


class Engine:
    """One engine; close it with :meth:`aclose`. Every method raises what :meth:`_request` raises."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        env = os.environ if environment is None else environment
        self.host = env.get("DOCKER_HOST") or DEFAULT_HOST
        self._client = self._make_client(env)
        self._version: str | None = None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def greet(self) -> None:
        """Ask for the version of the API again: behind this address there may be another engine by now."""
        response = await self._request("GET", "/_ping")
        self._version = response.headers.get("Api-Version") or ""

    async def inspect(self, container: str) -> Container | None:
        """A container by id or name; ``None`` if there is none."""
        try:
            response = await self._request("GET", f"/containers/{quote(container, safe='')}/json")
        except EngineRefusedError as refusal:
            if refusal.status == 404:
                return None
            raise
        try:
            return decode(response.json())
        except (ValueError, TypeError, KeyError) as error:
            raise BackendUnavailable(f"the Docker engine describes container {container} oddly: {error!r}") from error

    async def of_service(self, project: str, service: str) -> list[str]:
        """The ids of the containers of a compose service, in the order in which they were created."""
        labels = [f"{PROJECT_LABEL}={project}", f"{SERVICE_LABEL}={service}", f"{ONE_OFF_LABEL}=False"]
        filters = json.dumps({"label": labels})
        response = await self._request("GET", "/containers/json", params={"all": "1", "filters": filters})
        return [str(found["Id"]) for found in reversed(response.json())]

    async def image_id(self, name: str) -> str | None:
        """What an image name stands for now; ``None`` if the engine does not have it."""
        try:
            response = await self._request("GET", f"/images/{quote(name, safe='/:@')}/json")
        except EngineRefusedError as refusal:
            if refusal.status == 404:
                return None
            raise
        return str(response.json().get("Id"))

    async def start(self, container: str) -> None:
        """Start a container; nothing happens if it runs."""
        await self._request("POST", f"/containers/{container}/start", timeout_seconds=START_SECONDS)

    async def stop(self, container: str, seconds: int) -> None:
        """Stop a container, and end the engine's own attempts to start it again."""
        path = f"/containers/{container}/stop"
        await self._request("POST", path, params={"t": str(seconds)}, timeout_seconds=ANSWER_SECONDS + seconds)

    async def signal(self, container: str, name: str) -> bool:
        """Send a signal to the main process; returns whether there was one."""
        try:
            await self._request("POST", f"/containers/{container}/kill", params={"signal": name})
        except EngineRefusedError as refusal:
            if refusal.status in (404, 409):  # it is gone; it does not run
                return False
            raise
        return True

    async def thaw(self, container: str) -> None:
        """Let a frozen (paused) container go on. Some engines have done so at the signal already."""
        with suppress(EngineRefusedError):
            await self._request("POST", f"/containers/{container}/unpause")

    async def set_restart_policy(self, container: str, policy: str, attempts: int = 0) -> None:
        """Say when the engine itself starts a container again."""
        body = {"RestartPolicy": {"Name": policy, "MaximumRetryCount": attempts}}
        await self._request("POST", f"/containers/{container}/update", body=body)

    @asynccontextmanager
    async def events(self, quiet_seconds: float) -> AsyncIterator[AsyncIterator[Event]]:
        """What happens to containers from now on. It ends after ``quiet_seconds`` without an event.

        Raises (inside the block, too):
            BackendUnavailable: the engine does not answer, or ended the stream.
        """
        filters = json.dumps({"type": ["container"], "event": ["die", "health_status"]})
        timeout = httpx.Timeout(ANSWER_SECONDS, read=quiet_seconds, pool=None)
        url = await self._url("/events")
        try:
            async with self._client.stream("GET", url, params={"filters": filters}, timeout=timeout) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise _refusal(response)
                yield _events(response)
                # Only one that ended by quiet was read to its end without an exception: see _events.
        except httpx.HTTPError as error:
            raise self._absence(error) from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        timeout_seconds: float | None = None,
    ) -> httpx.Response:
        """One call.

        Raises:
            EngineRefusedError: the engine says no.
            BackendUnavailable: it does not answer, or is just being shut down.
            BackendError: it may not be asked (no permission).
        """
        url = path if path == "/_ping" else await self._url(path)
        timeout = httpx.Timeout(timeout_seconds or ANSWER_SECONDS, connect=ANSWER_SECONDS, pool=None)
        try:
            response = await self._client.request(method, url, params=params, json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise self._absence(error) from error
        if response.status_code == 503:
            raise BackendUnavailable(f"the Docker engine at {self.host} cannot do it now: {_message(response)}")
        if response.status_code >= 400:
            raise _refusal(response)
        return response

    async def _url(self, path: str) -> str:
        """A path with the version of the engine's own API, which is the only one that no engine is too new for."""
        if self._version is None:
            await self.greet()
        return f"/v{self._version}{path}" if self._version else path

    def _make_client(self, env: Mapping[str, str]) -> httpx.AsyncClient:
        scheme, _, rest = self.host.partition("://")
        if scheme not in _SCHEMES or not rest:
            raise BackendError(
                f"DOCKER_HOST={self.host}: citadel reaches a Docker engine at unix:///path or tcp://host:port only"
            )
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=60.0)
        if scheme == "unix":
            unix = httpx.AsyncHTTPTransport(uds=rest, limits=limits)
            return httpx.AsyncClient(transport=unix, base_url="http://docker", trust_env=False)
        secure = scheme == "https" or bool(env.get("DOCKER_TLS_VERIFY"))
        verify = _tls(env) if secure else True
        tcp = httpx.AsyncHTTPTransport(verify=verify, limits=limits, socket_options=_KEEP_ALIVE)
        base = f"{'https' if secure else 'http'}://{rest.rstrip('/')}"
        return httpx.AsyncClient(transport=tcp, base_url=base, trust_env=False)

    def _absence(self, error: httpx.HTTPError) -> BackendError | BackendUnavailable:
        """What it means that there was no answer."""
        if _has_cause(error, PermissionError):
            return BackendError(
                f"this agent (uid {os.geteuid()}) may not use the Docker engine at {self.host}: "
                f"add its user to the group of the socket (usermod -aG docker USER), and restart the agent"
            )
        if isinstance(error, httpx.ConnectError) and self.host.startswith("unix:"):
            return BackendUnavailable(
                f"there is no Docker engine at {self.host}: start it (systemctl start docker), or set DOCKER_HOST"
            )
        if isinstance(error, httpx.TimeoutException):
            return BackendUnavailable(f"the Docker engine at {self.host} does not answer")
        return BackendUnavailable(f"the Docker engine at {self.host} broke off: {str(error) or repr(error)}")


def _has_cause(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


async def _events(response: httpx.Response) -> AsyncIterator[Event]:
    """The events of a stream, one a line, until it has been quiet for long enough."""
    try:
        async for line in response.aiter_lines():
            event = _event(line)
            if event is not None:
                yield event
    except httpx.ReadTimeout:
        return
    raise httpx.RemoteProtocolError("it ended the stream of events")


def _event(line: str) -> Event | None:
    try:
        value = json.loads(line)
        actor = value["Actor"]
        code = (actor.get("Attributes") or {}).get("exitCode")
        return Event(str(value["Action"]), str(actor["ID"]), None if code is None else int(code))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _refusal(response: httpx.Response) -> EngineRefusedError:
    return EngineRefusedError(_message(response), response.status_code)


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"]).strip()
    except (ValueError, TypeError, KeyError):
        return f"HTTP {response.status_code}"


def _tls(env: Mapping[str, str]) -> ssl.SSLContext:
    """As the docker command line does it: ca.pem, cert.pem and key.pem in one folder."""
    folder = Path(env.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except OSError as error:
        raise BackendError(f"the certificates for the Docker engine in {folder} cannot be read: {error}") from error
    return context
