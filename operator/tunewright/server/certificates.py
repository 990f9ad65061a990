"""The progress endpoint's certificate: made, kept in a Secret, renewed, and loaded without a restart."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
import os
import re
import ssl
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tunewright.cluster.client import Client
from tunewright.cluster.errors import ApiError, Conflict, NotFound
from tunewright.cluster.resources import SECRETS
from tunewright.core.model import Manifest

log = logging.getLogger(__name__)

CA_LIFE = timedelta(days=3650)
"""Running trainers hold the CA that was current when their attempt began, so it outlives any job."""
CA_RENEW_BEFORE = timedelta(days=365)
CERTIFICATE_LIFE = timedelta(days=90)
CERTIFICATE_RENEW_BEFORE = timedelta(days=30)
CLOCK_SKEW = timedelta(minutes=10)
CHECK_SECONDS = 3600.0

_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----\n?", re.DOTALL)
CA_BUNDLE, CA_KEY, CERTIFICATE, KEY = "ca.crt", "ca.key", "tls.crt", "tls.key"


@dataclass(frozen=True)
class Bundle:
    """PEM texts. ``ca`` may hold several certificates: the newest first, older ones that are still valid;
    ``ca_key`` holds their keys in the same order."""

    ca: bytes
    ca_key: bytes
    certificate: bytes
    key: bytes

    @classmethod
    def from_secret(cls, secret: Manifest) -> Bundle | None:
        """The bundle in a Secret, None if a part is missing."""
        data = secret.get("data") or {}
        parts = [data.get(key) or "" for key in (CA_BUNDLE, CA_KEY, CERTIFICATE, KEY)]
        if not all(parts):
            return None
        return cls(*(base64.b64decode(part) for part in parts))

    def to_data(self) -> dict[str, str]:
        """``data`` of the Secret."""
        parts = {CA_BUNDLE: self.ca, CA_KEY: self.ca_key, CERTIFICATE: self.certificate, KEY: self.key}
        return {key: base64.b64encode(part).decode() for key, part in parts.items()}


def renewed(bundle: Bundle | None, hosts: Sequence[str], now: datetime) -> Bundle:
    """``bundle`` itself while it is good for ``hosts`` at ``now``, else one with what had to be made anew.

    A new CA only signs once the old one is too close to its end for another certificate. Until then it is
    trusted by each attempt that begins, so whoever trusts the old one alone began long before.
    """
    known = [authority for authority in _authorities(bundle) if authority.left(now) > timedelta(0)]
    if not known or known[0].left(now) <= CA_RENEW_BEFORE:
        known = [_self_signed(now), *known]
    ca = b"".join(_pem(authority.certificate) for authority in known)
    ca_key = b"".join(_key_pem(authority.key) for authority in known)
    if (
        bundle is not None
        and (bundle.ca, bundle.ca_key) == (ca, ca_key)
        and _serves(bundle, known, hosts, now)
    ):
        return bundle
    signer = next(authority for authority in reversed(known) if authority.left(now) > CERTIFICATE_LIFE)
    certificate, key = _issue(signer, hosts, now)
    return Bundle(ca, ca_key, _pem(certificate), _key_pem(key))


@dataclass(frozen=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def left(self, now: datetime) -> timedelta:
        return self.certificate.not_valid_after_utc - now


def _authorities(bundle: Bundle | None) -> list[_Authority]:
    """The stored CAs that can sign, the newest first."""
    if bundle is None:
        return []
    try:
        certificates = x509.load_pem_x509_certificates(bundle.ca)
        keys = [serialization.load_pem_private_key(pem, None) for pem in _PRIVATE_KEY.findall(bundle.ca_key)]
    except ValueError as error:
        log.warning("the stored CA can't be read, making a new one: %s", error)
        return []
    found = [
        _Authority(certificate, key)
        for certificate in certificates
        for key in keys
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key()
    ]
    if len(found) < len(certificates):
        log.warning("%d of the stored CAs lack their key and are given up", len(certificates) - len(found))
    return sorted(found, key=lambda authority: authority.certificate.not_valid_after_utc, reverse=True)


def _serves(bundle: Bundle, known: Sequence[_Authority], hosts: Sequence[str], now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(bundle.certificate)
        key = serialization.load_pem_private_key(bundle.key, password=None)
        issuer = next(each for each in known if each.certificate.subject == certificate.issuer)
        certificate.verify_directly_issued_by(issuer.certificate)
    except StopIteration:
        log.warning("the stored certificate is of a CA that is not known, making a new one")
        return False
    except Exception as error:  # whatever cryptography finds wrong, the cure is a new certificate
        log.warning("the stored certificate can't be used, making a new one: %s", error)
        return False
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        key.public_key() == certificate.public_key()
        and certificate.not_valid_after_utc - now > CERTIFICATE_RENEW_BEFORE
        and set(names) == set(map(_general_name, hosts))
    )


def _self_signed(now: datetime) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"tunewright progress CA {now:%Y-%m-%d}")])
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder(name, name, key, now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _Authority(certificate, key)


def _issue(
    ca: _Authority, hosts: Sequence[str], now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tunewright progress")])
    names = x509.SubjectAlternativeName(list(map(_general_name, hosts)))
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    certificate = (
        _builder(subject, ca.certificate.subject, key, now, CERTIFICATE_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + life)
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class CertificateKeeper:
    """Keeps the Secret good and an SSL context equal to it. Several replicas may do so at once."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        secret: str,
        hosts: Sequence[str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._secret = secret
        self._hosts = list(hosts)
        self._now = now
        self._loaded: Bundle | None = None
        self.ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ssl_context.minimum_version = ssl.TLSVersion.TLSv1_2

    @property
    def ca_pem(self) -> str:
        """What clients must trust; empty before the first :meth:`refresh`."""
        return self._loaded.ca.decode() if self._loaded else ""

    async def refresh(self) -> None:
        """Renew if it is time, and load what is stored. Raises ApiError."""
        bundle = await self._stored()
        if bundle != self._loaded:
            await asyncio.to_thread(_load, self.ssl_context, bundle)
            self._loaded = bundle

    async def run(self) -> None:
        """Refresh every hour until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.refresh()
            except ApiError as error:
                log.warning("the certificate could not be checked, trying again in an hour: %s", error)

    async def _stored(self) -> Bundle:
        for _ in range(10):
            try:
                secret = await self._client.get(SECRETS, self._namespace, self._secret)
            except NotFound:
                secret = None
            bundle = Bundle.from_secret(secret) if secret else None
            wanted = await asyncio.to_thread(renewed, bundle, self._hosts, self._now())
            if wanted == bundle:
                return wanted
            try:
                await self._write(secret, wanted)
            except Conflict:
                continue  # another replica wrote first: use what it wrote
            log.info("stored a new certificate for %s", ", ".join(self._hosts))
            return wanted
        raise Conflict(409, "Conflict", f"Secret {self._namespace}/{self._secret} changes all the time")

    async def _write(self, secret: Manifest | None, bundle: Bundle) -> None:
        if secret is None:
            metadata = {"name": self._secret, "namespace": self._namespace}
            manifest = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata}
            await self._client.create(SECRETS, manifest | {"data": bundle.to_data()})
        else:
            await self._client.replace(SECRETS, secret | {"data": bundle.to_data()})


def _load(context: ssl.SSLContext, bundle: Bundle) -> None:
    """Load into a context that is in use: new connections get the new certificate.

    Python reads certificates from files only; the file is private and gone at once.
    """
    descriptor, path = tempfile.mkstemp(prefix="tunewright-tls-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(bundle.certificate + bundle.key)
        context.load_cert_chain(path)
    finally:
        Path(path).unlink()
