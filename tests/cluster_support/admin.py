"""An administrator's connection to the API server for tests that poll: a kubectl each time costs a core."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from hack.devcluster.cluster import DevCluster
from hack.devcluster.pki import Authority

Object = dict[str, Any]
USER = "test-admin"
_PATHS = {
    "finetunejobs": "/apis/tunewright.dev/v1alpha1",
    "jobs": "/apis/batch/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "deployments": "/apis/apps/v1",
    "events": "/apis/events.k8s.io/v1",
}


class Refused(Exception):
    """The API server said no: ``status`` and its words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Admin:
    """One kept connection, made anew when it breaks."""

    def __init__(self, cluster: DevCluster) -> None:
        pki = cluster.state.pki
        certificate, key = Authority(pki).issue(USER, USER, ["system:masters"])
        self._tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._tls.load_cert_chain(certificate, key)
        self._address = urlsplit(cluster.server).netloc
        self._connection: http.client.HTTPSConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def find(self, plural: str, namespace: str, name: str, subresource: str = "") -> Object | None:
        """The object, or None when there is none."""
        try:
            return self.call("GET", path(plural, namespace, name, subresource))
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def list(self, plural: str, namespace: str = "", selector: str = "") -> list[Object]:
        query = f"?labelSelector={selector}" if selector else ""
        items: list[Object] = self.call("GET", path(plural, namespace) + query)["items"]
        return items

    def merge(self, plural: str, namespace: str, name: str, changes: Object, subresource: str = "") -> Object:
        """A JSON merge patch."""
        where = path(plural, namespace, name, subresource)
        return self.call("PATCH", where, changes, "application/merge-patch+json")

    def delete(self, plural: str, namespace: str, name: str, **options: Any) -> None:
        self.call("DELETE", path(plural, namespace, name), options)

    def call(
        self, method: str, where: str, body: Object | None = None, content_type: str = "application/json"
    ) -> Object:
        """One request; raises Refused."""
        data = None if body is None else json.dumps(body)
        headers = {} if data is None else {"Content-Type": content_type}
        try:
            return self._once(method, where, data, headers)
        except (http.client.HTTPException, OSError):
            # A kept connection that the server has closed meanwhile.
            self.close()
            return self._once(method, where, data, headers)

    def _once(self, method: str, where: str, data: str | None, headers: dict[str, str]) -> Object:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(self._address, context=self._tls, timeout=30)
        self._connection.request(method, where, data, headers)
        response = self._connection.getresponse()
        text = response.read()
        answer: Object = json.loads(text) if text else {}
        if response.status >= 400:
            raise Refused(response.status, str(answer.get("message")))
        return answer


def path(plural: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """URL path of a collection (of all namespaces without one) or of an object."""
    parts = [_PATHS.get(plural, "/api/v1")]
    if namespace:
        parts += ["namespaces", namespace]
    return "/".join([*parts, plural, *filter(None, (name, subresource))])
