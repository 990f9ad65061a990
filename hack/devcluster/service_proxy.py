"""Plays kube-proxy and DNS: listens at each Service's derived address and joins callers to a ready pod."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

from hack.devcluster.addresses import address_of, pod_address
from hack.devcluster.api import Api, Object

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name."""
SERVICE_LABEL = "kubernetes.io/service-name"
CHUNK_BYTES = 65536


class Tables:
    """What the API server says of Services, EndpointSlices and Pods."""

    def __init__(self) -> None:
        self.services: dict[Key, Object] = {}
        self.slices: dict[Key, Object] = {}
        self.pods: dict[Key, Object] = {}

    def backends(self, service: Key, port_name: str) -> list[tuple[str, int]]:
        """Addresses and ports of the ready pods behind one port of a Service."""
        found = []
        for each in self.slices.values():
            metadata = each["metadata"]
            of_service = (metadata["namespace"], (metadata.get("labels") or {}).get(SERVICE_LABEL))
            if of_service != service:
                continue
            ports = [
                port["port"] for port in each.get("ports") or [] if (port.get("name") or "") == port_name
            ]
            for endpoint in each.get("endpoints") or []:
                pod = self.pods.get((service[0], (endpoint.get("targetRef") or {}).get("name", "")))
                if pod is not None and (endpoint.get("conditions") or {}).get("ready"):
                    found += [(pod_address(pod), port) for port in ports]
        return found


def proxied_ports(service: Object) -> dict[int, str]:
    """Port number to port name for what is served: TCP ports of a Service that isn't headless."""
    spec = service["spec"]
    if spec.get("clusterIP") in (None, "", "None") or spec.get("type") == "ExternalName":
        return {}
    ports = [port for port in spec.get("ports") or [] if port.get("protocol", "TCP") == "TCP"]
    return {port["port"]: port.get("name") or "" for port in ports}


class ServiceProxy:
    """Keeps one listener per Service port, as long as the Service has it."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._tables = Tables()
        self._listeners: dict[tuple[Key, int], asyncio.Server] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled."""
        tables = self._tables
        try:
            await asyncio.gather(
                self._follow("/api/v1/services", tables.services),
                self._follow("/apis/discovery.k8s.io/v1/endpointslices", tables.slices),
                self._follow("/api/v1/pods", tables.pods),
                self._listen(),
            )
        finally:
            for server in self._listeners.values():
                server.close()

    async def _follow(self, path: str, table: dict[Key, Object]) -> None:
        async for kind, item in self._api.follow(path):
            if kind == "SYNC":
                table.clear()
                table.update({_key(each): each for each in item})
            elif kind == "DELETED":
                table.pop(_key(item), None)
            else:
                table[_key(item)] = item
            if table is self._tables.services:
                self._changed.set()

    async def _listen(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            services = self._tables.services
            wanted = {(key, port) for key, each in services.items() for port in proxied_ports(each)}
            for gone in set(self._listeners) - wanted:
                self._listeners.pop(gone).close()
            for key, port in wanted - set(self._listeners):
                await self._open(key, port)

    async def _open(self, service: Key, port: int) -> None:
        namespace, name = service
        address = address_of(name, namespace)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(service, port, reader, writer)

        try:
            self._listeners[service, port] = await asyncio.start_server(serve, address, port)
        except OSError as error:
            # Typically a pod that binds the wildcard address at the same port.
            log.error("Service %s/%s port %d is not served at %s: %s", namespace, name, port, address, error)
            asyncio.get_running_loop().call_later(2, self._changed.set)

    async def _serve(
        self, service: Key, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Join one caller to a ready pod; no ready pod closes the connection, as a reset would."""
        try:
            current = self._tables.services.get(service)
            backends = self._tables.backends(service, proxied_ports(current)[port]) if current else []
            random.shuffle(backends)
            for address, target_port in backends:
                try:
                    up_reader, up_writer = await asyncio.open_connection(address, target_port)
                except OSError as error:
                    log.info("Backend %s:%d of %s: %s", address, target_port, service, error)
                    continue
                await asyncio.gather(_pump(reader, up_writer), _pump(up_reader, writer))
                return
        finally:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction to its end, and pass the end on."""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
            return
    writer.close()


def _key(item: Object) -> Key:
    return item["metadata"]["namespace"], item["metadata"]["name"]
