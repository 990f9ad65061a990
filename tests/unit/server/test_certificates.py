"""The certificate is kept while it is good, renewed in time, and trusted by those who trust the CA."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from cryptography import x509

from tests.unit.cluster.api_server import ApiServer, client_of, serving
from tunewright.server.certificates import (
    CA_LIFE,
    CA_RENEW_BEFORE,
    CERTIFICATE_LIFE,
    CERTIFICATE_RENEW_BEFORE,
    Bundle,
    CertificateKeeper,
    renewed,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOSTS = ("progress.ns.svc", "127.0.0.1")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return renewed(None, HOSTS, NOW)


def test_a_good_bundle_is_kept_as_it_is(bundle: Bundle) -> None:
    assert renewed(bundle, HOSTS, NOW + timedelta(days=1)) is bundle
    assert renewed(bundle, tuple(reversed(HOSTS)), NOW) is bundle


def test_the_certificate_names_every_host_and_no_other(bundle: Bundle) -> None:
    certificate = x509.load_pem_x509_certificate(bundle.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["progress.ns.svc"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_the_certificate_is_renewed_in_time_under_the_same_ca(bundle: Bundle) -> None:
    due = NOW + CERTIFICATE_LIFE - CERTIFICATE_RENEW_BEFORE
    assert renewed(bundle, HOSTS, due - timedelta(hours=1)) is bundle
    later = renewed(bundle, HOSTS, due + timedelta(hours=1))
    assert later.ca == bundle.ca
    assert later.certificate != bundle.certificate


def test_another_host_needs_another_certificate_but_not_another_ca(bundle: Bundle) -> None:
    other = renewed(bundle, (*HOSTS, "more"), NOW)
    assert other.ca == bundle.ca
    assert other.certificate != bundle.certificate


def authorities(bundle: Bundle) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(bundle.ca)


def issuer(bundle: Bundle) -> x509.Certificate:
    """The one of the bundle's CAs that its certificate is of."""
    certificate = x509.load_pem_x509_certificate(bundle.certificate)
    issuer = next(ca for ca in authorities(bundle) if ca.subject == certificate.issuer)
    certificate.verify_directly_issued_by(issuer)
    return issuer


def test_a_new_ca_comes_before_the_old_one_ends_and_both_are_trusted(bundle: Bundle) -> None:
    due = NOW + CA_LIFE - CA_RENEW_BEFORE
    assert authorities(renewed(bundle, HOSTS, due - timedelta(days=1))) == authorities(bundle)
    later = renewed(bundle, HOSTS, due + timedelta(days=1))
    assert len(authorities(later)) == 2
    assert authorities(later)[1:] == authorities(bundle)
    assert renewed(later, HOSTS, due + timedelta(days=2)) is later
    much_later = renewed(later, HOSTS, NOW + CA_LIFE + timedelta(days=1))
    assert authorities(much_later) == authorities(later)[:1], "what has expired is no longer trusted"


def test_who_trusts_the_old_ca_alone_is_served_for_most_of_a_year_after_the_new_one_came(
    bundle: Bundle,
) -> None:
    """Day by day, as the keeper goes: an attempt that began on the day before the new CA came."""
    old = authorities(bundle)[0]
    day = NOW + CA_LIFE - CA_RENEW_BEFORE - timedelta(days=1)
    stored, served = bundle, timedelta(0)
    while issuer(stored := renewed(stored, HOSTS, day)) == old:
        leaf = x509.load_pem_x509_certificate(stored.certificate)
        assert day + CERTIFICATE_RENEW_BEFORE <= leaf.not_valid_after_utc <= old.not_valid_after_utc
        served += timedelta(days=1)
        day += timedelta(days=1)
    assert CA_RENEW_BEFORE - CERTIFICATE_LIFE <= served <= CA_RENEW_BEFORE - CERTIFICATE_RENEW_BEFORE
    assert issuer(stored) == authorities(stored)[0]
    assert old in authorities(stored)


def test_a_ca_whose_key_is_lost_is_given_up(bundle: Bundle) -> None:
    both = renewed(bundle, HOSTS, NOW + CA_LIFE - CA_RENEW_BEFORE + timedelta(days=1))
    newest_key = both.ca_key.removesuffix(bundle.ca_key)
    assert newest_key != both.ca_key
    mended = renewed(replace(both, ca_key=newest_key), HOSTS, NOW + CA_LIFE - CA_RENEW_BEFORE)
    assert authorities(mended) == authorities(both)[:1]
    assert issuer(mended) == authorities(both)[0]


@pytest.mark.parametrize("parts", ["ca", "ca_key", "certificate", "key", "certificate key", "ca ca_key"])
def test_a_damaged_part_is_mended(bundle: Bundle, parts: str) -> None:
    stranger = renewed(None, HOSTS, NOW)
    strange = {part: getattr(stranger, part) for part in parts.split()}
    for damage in (dict.fromkeys(strange, b"nonsense"), strange):
        mended = renewed(replace(bundle, **damage), HOSTS, NOW)
        assert renewed(mended, HOSTS, NOW) is mended
        certificate = x509.load_pem_x509_certificate(mended.certificate)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificates(mended.ca)[0])


def test_a_secret_that_lacks_a_part_is_no_bundle(bundle: Bundle) -> None:
    data = bundle.to_data()
    assert Bundle.from_secret({"data": data}) == bundle
    assert Bundle.from_secret({"data": data | {"tls.key": ""}}) is None
    assert Bundle.from_secret({}) is None


def keeper_of(server: ApiServer, now: datetime = NOW) -> CertificateKeeper:
    return CertificateKeeper(client_of(server), "ns", "tls", ["localhost"], lambda: now)


def test_replicas_that_start_at_once_agree_on_one_certificate() -> None:
    async def scenario() -> None:
        async with serving() as server:
            keepers = [keeper_of(server) for _ in range(4)]
            await asyncio.gather(*(keeper.refresh() for keeper in keepers))
            assert len({keeper.ca_pem for keeper in keepers}) == 1
            assert len(server.objects) == 1
            for keeper in keepers:
                await keeper._client.transport.close()

    asyncio.run(scenario())


def test_a_renewed_certificate_is_served_without_a_restart() -> None:
    async def scenario() -> None:
        now = datetime.now(UTC)
        made = now - CERTIFICATE_LIFE + timedelta(days=1)
        async with serving() as server:
            keeper = keeper_of(server, made)
            await keeper.refresh()
            async with https(keeper) as url:
                first = await serial_number(url, keeper.ca_pem)
                assert await serial_number(url, keeper.ca_pem) == first
                keeper._now = lambda: now
                await keeper.refresh()
                assert await serial_number(url, keeper.ca_pem) != first
                with pytest.raises(ssl.SSLCertVerificationError):
                    await serial_number(url, renewed(None, ["localhost"], now).ca.decode())
            await keeper._client.transport.close()

    asyncio.run(scenario())


@asynccontextmanager
async def https(keeper: CertificateKeeper) -> AsyncIterator[str]:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=keeper.ssl_context).start()
    try:
        yield f"https://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def serial_number(url: str, ca_pem: str) -> str:
    """Serial number of the certificate that is shown to a client who trusts ``ca_pem``."""
    context = ssl.create_default_context(cadata=ca_pem)
    host, port = url.removeprefix("https://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    certificate = writer.get_extra_info("peercert")
    writer.close()
    await writer.wait_closed()
    return str(certificate["serialNumber"])
