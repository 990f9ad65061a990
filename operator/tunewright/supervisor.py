"""Wires the operator together and runs it: caches, servers, election; on the leader, kopf and workers."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

from aiohttp import web

from tunewright import __version__
from tunewright.cluster.caches import Caches, JobKey
from tunewright.cluster.client import Client
from tunewright.cluster.credentials import Credentials
from tunewright.cluster.errors import ApiError, NotFound
from tunewright.cluster.events import EventRecorder
from tunewright.cluster.lease import Elector, LeadershipLost
from tunewright.cluster.resources import FINETUNEJOBS
from tunewright.cluster.transport import Transport
from tunewright.cluster.workqueue import WorkQueue
from tunewright.cluster.world import ClusterView
from tunewright.core.model import Manifest
from tunewright.core.progress import ProgressBook
from tunewright.core.reconcile import Reconciler
from tunewright.core.settings import OperatorSettings
from tunewright.handlers import KopfThread, OnEvent
from tunewright.server.certificates import CertificateKeeper
from tunewright.server.forward import Forwarder
from tunewright.server.health import Health
from tunewright.server.intake import ProgressIntake
from tunewright.server.metrics import LoopWatchdog, Metrics
from tunewright.server.progress import ProgressServer, TokenChecker
from tunewright.settings import Address, Settings
from tunewright.workers import Workers

log = logging.getLogger(__name__)

LEASE_TIMEOUT_SECONDS = 5.0
CRD_POLL_SECONDS = 5.0
FLUSH_SECONDS = 3.0
SERVER_SHUTDOWN_SECONDS = 2.0


class CannotListen(Exception):
    """An address that the settings name can't be listened on; the text names address and variable."""


class Operator:
    """One replica. :meth:`run` returns after ``stop`` is set, and raises LeadershipLost."""

    def __init__(self, credentials: Credentials, settings: Settings) -> None:
        self._settings = settings
        self._credentials = credentials
        self.metrics = Metrics()
        self._transport = Transport(
            credentials, max_in_flight=settings.max_in_flight, observe=self.metrics.observe_request
        )
        # The lease has a connection and a limit of its own: a busy client must not starve its renewal.
        self._lease_transport = Transport(
            credentials,
            max_in_flight=2,
            timeout_seconds=LEASE_TIMEOUT_SECONDS,
            observe=self.metrics.observe_request,
        )
        client = Client(self._transport)
        self._client = client
        self.queue: WorkQueue[JobKey] = WorkQueue(on_wait=self.metrics.queue_wait_seconds.observe)
        self._book = ProgressBook()
        self.caches = Caches(
            client, self.queue.add, namespace=settings.watch_namespace, on_job_gone=self._job_gone
        )
        self._intake = ProgressIntake(
            self._book, self.caches, self.queue.add_after, settings.core.progress_status_seconds
        )
        self._recorder = EventRecorder(client, settings.pod_name)
        self._view = ClusterView(
            client, self.caches, self._recorder, self._book, check_secrets=settings.check_secrets
        )
        self._reconciler = Reconciler(self._view, self._core_settings, lambda: datetime.now(UTC))
        self.elector = Elector(
            Client(self._lease_transport),
            settings.namespace,
            settings.lease_name,
            f"{settings.pod_name}_{uuid.uuid4().hex[:8]}",
        )
        self._keeper: CertificateKeeper | None = None
        self._forwarder: Forwarder | None = None
        if settings.progress is not None:
            keeper = self._keeper = CertificateKeeper(
                client, settings.namespace, settings.progress_secret, settings.progress_hosts
            )
            self._forwarder = Forwarder(
                lambda: self.elector.leader_address, lambda: keeper.ca_pem, settings.progress_hosts[0]
            )
        self._kopf: KopfThread | None = None
        self._watchdog = LoopWatchdog(self.metrics.loop_lag_seconds.observe)
        self.health = Health(self.caches, self._watchdog.lag_seconds, self._parts)
        self.metrics.watch_state(self.queue, self.caches, self._book, self.is_leader)
        self.addresses: dict[str, tuple[str, int]] = {}
        """Where the servers ``http`` and ``progress`` listen, once they do."""

    def is_leader(self) -> bool:
        """May this replica write now?"""
        return not self._settings.leader_elect or self.elector.is_leader()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set. Raises LeadershipLost when another replica may be leading, CannotListen,
        and whatever else ended a part that must not end: a fresh process is the cure then."""
        log.info("tunewright %s starts in namespace %s", __version__, self._settings.namespace)
        try:
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(self._watchdog.run(), name="watchdog"),
                    group.create_task(self.caches.run(), name="caches"),
                    group.create_task(self._recorder.run(), name="events"),
                ]
                work = group.create_task(self._work(), name="work")
                await stop.wait()
                log.info("stopping")
                self.health.serving = False
                self.queue.close()
                work.cancel()
                await asyncio.wait([work])
                # Hand over first: events can wait, and kopf takes seconds to stop.
                await self.elector.release()
                await self._recorder.flush(FLUSH_SECONDS)
                for task in background:
                    task.cancel()
        except* (LeadershipLost, CannotListen) as ended:
            raise ended.exceptions[0] from None
        finally:
            await self.elector.release()
            if self._kopf is not None:
                await self._kopf.stop()
            if self._forwarder is not None:
                await self._forwarder.close()
            await self._transport.close()
            await self._lease_transport.close()
        log.info("stopped")

    async def _work(self) -> None:
        """All of it in order; a standby waits at the lease."""
        async with self._serve("http", self._settings.http, self._http_application()):
            await self._wait_for_crd()
            if self._keeper is None or self._settings.progress is None:
                await self._lead()
                return
            await self._certificate_ready(self._keeper)
            application, context = self._progress_application(), self._keeper.ssl_context
            async with (
                self._serve("progress", self._settings.progress, application, context),
                asyncio.TaskGroup() as group,
            ):
                self.elector.progress_address = self._progress_address()
                group.create_task(self._keeper.run(), name="certificate")
                group.create_task(self._lead(), name="leader")

    async def _lead(self) -> None:
        self.health.serving = True
        await self.caches.synced()
        log.info("caches are filled: %s", {name: len(i.store) for name, i in self.caches.all.items()})
        gc.freeze()  # what lives from the start on need not be looked at by each collection
        if self._settings.leader_elect:
            await self.elector.acquire()
        # From here on this replica may write; should the lease pass on, the transport stops its writes.
        self._transport.may_write = self.is_leader
        self._kopf = KopfThread(self._credentials, self._on_kopf_event(), self._settings.watch_namespace)
        self._kopf.start()
        workers = Workers(
            self.queue,
            self._reconciler.reconcile,
            self._settings.workers,
            lambda outcome, seconds: self.metrics.reconcile_seconds.labels(outcome).observe(seconds),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(workers.run(), name="workers")
            if self._settings.leader_elect:
                group.create_task(self.elector.hold(), name="lease")

    def _core_settings(self) -> OperatorSettings:
        if self._keeper is None:
            return self._settings.core
        return replace(self._settings.core, progress_ca_pem=self._keeper.ca_pem)

    def _parts(self) -> Mapping[str, bool]:
        return {} if self._kopf is None else {"kopf": self._kopf.is_alive()}

    def _job_gone(self, uid: str) -> None:
        self._intake.forget(uid)

    def _on_kopf_event(self) -> OnEvent:
        """Hands an event of kopf's thread over to our loop and into the cache, which enqueues the key."""
        loop = asyncio.get_running_loop()

        def hand_over(kind: str | None, job: Manifest) -> None:
            take = self.caches.gone if kind == "DELETED" else self.caches.seen
            loop.call_soon_threadsafe(take, FINETUNEJOBS, job)

        return hand_over

    async def _wait_for_crd(self) -> None:
        """Say what is wrong where the CRD is missing, and go on as soon as it is there."""
        said = False
        while True:
            try:
                await self._client.list(FINETUNEJOBS, self._settings.watch_namespace, page_size=1)
                return
            except NotFound:
                if not said:
                    log.error(
                        "waiting for the FineTuneJob CRD: install it by "
                        "`tunewright crd | kubectl apply --server-side -f -`"
                    )
                said = True
            except ApiError as error:
                log.warning("cannot list FineTuneJobs yet: %s", error)
            await asyncio.sleep(CRD_POLL_SECONDS)

    @staticmethod
    async def _certificate_ready(keeper: CertificateKeeper) -> None:
        while True:
            try:
                await keeper.refresh()
                return
            except ApiError as error:
                log.warning("the progress endpoint waits for its certificate: %s", error)
            await asyncio.sleep(CRD_POLL_SECONDS)

    def _http_application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/healthz", self.health.healthz)
        application.router.add_get("/readyz", self.health.readyz)
        application.router.add_get("/metrics", self.metrics.handle)
        return application

    def _progress_address(self) -> str:
        """Where the other replicas reach the progress endpoint, as host:port; empty where they can't."""
        host, port = self.addresses["progress"]
        host = self._settings.pod_ip or host
        if host in ("0.0.0.0", "::"):
            return ""
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _progress_application(self) -> web.Application:
        server = ProgressServer(
            TokenChecker(self._client),
            self._view.is_current_worker,
            self._intake.record,
            accepts=self.is_leader,
            forwarder=self._forwarder,
            count=lambda code: self.metrics.progress_posts.labels(code).inc(),
        )
        return server.application()

    @asynccontextmanager
    async def _serve(
        self, name: str, address: Address, application: web.Application, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[None]:
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=SERVER_SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, address.host, address.port, ssl_context=tls).start()
            except OSError as error:
                place = f"{address.host} port {address.port} (TUNEWRIGHT_{name.upper()}_BIND)"
                raise CannotListen(
                    f"cannot listen on {place}: {os.strerror(error.errno or 0)}; name another address"
                ) from None
            host, port = runner.addresses[0][:2]
            self.addresses[name] = (host, port)
            log.info("%s listens on %s port %d", name, host, port)
            yield
        finally:
            await runner.cleanup()
