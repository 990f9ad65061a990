"""Do the secrets, claims and ConfigMaps that a job names exist? Asked one by one, metadata only.

They are not watched: a watch would need the right to read every secret's content in the cluster.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from tunewright.cluster.client import Client
from tunewright.cluster.errors import Forbidden, NotFound
from tunewright.cluster.resources import CONFIGMAPS, PERSISTENTVOLUMECLAIMS, SECRETS

log = logging.getLogger(__name__)

_RESOURCES = {"secret": SECRETS, "persistentvolumeclaim": PERSISTENTVOLUMECLAIMS, "configmap": CONFIGMAPS}
REMEMBER_SECONDS = 300.0
MOST_REMEMBERED = 10_000


class ReferenceCheck:
    """Remembers for some minutes what existed; asks anew for what did not."""

    def __init__(
        self, client: Client, *, check_secrets: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._check_secrets = check_secrets
        self._clock = clock
        self._found: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def check(self, namespace: str, references: Iterable[str]) -> dict[str, bool]:
        """Existence by ``kind/name``. Raises ApiError if the API server can't be asked; without the right
        to look, an object is taken to exist: its absence then shows when a pod can't start."""
        return {reference: await self._exists(namespace, reference) for reference in references}

    async def _exists(self, namespace: str, reference: str) -> bool:
        key = (namespace, reference)
        if self._clock() - self._found.get(key, float("-inf")) < REMEMBER_SECONDS:
            return True
        kind, _, name = reference.partition("/")
        if kind == "secret" and not self._check_secrets:
            return True
        try:
            await self._client.get(_RESOURCES[kind], namespace, name, metadata_only=True)
        except NotFound:
            self._found.pop(key, None)
            return False
        except Forbidden as error:
            log.warning(
                "cannot look for %s in %s, going on as if it existed: %s", reference, namespace, error
            )
        self._found.pop(key, None)
        self._found[key] = self._clock()
        while len(self._found) > MOST_REMEMBERED:
            self._found.popitem(last=False)
        return True
