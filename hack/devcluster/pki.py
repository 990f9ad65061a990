"""Certificates and kubeconfigs: every program and every node has credentials of its own."""

from __future__ import annotations

import base64
import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hack.devcluster.state import StateDir, write_file

VALIDITY = datetime.timedelta(days=365)
_PRIVATE_FORMAT = (
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


class Authority:
    """The cluster's certificate authority; its key stays in the state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate_file = folder / "ca.crt"
        self._key_file = folder / "ca.key"

    def create(self) -> None:
        """Make the CA and the key pair that signs ServiceAccount tokens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("devcluster-ca", ())
        builder = _builder(name, name, key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        certificate = builder.sign(key, hashes.SHA256())
        write_file(self.certificate_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        write_file(self._key_file, key.private_bytes(*_PRIVATE_FORMAT))
        # The API server signs ServiceAccount tokens with RS256, which every verifier knows.
        signer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        write_file(self.folder / "service-account.key", signer.private_bytes(*_PRIVATE_FORMAT))
        public = signer.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write_file(self.folder / "service-account.pub", public, 0o644)

    def issue(
        self, file_name: str, common_name: str, groups: Sequence[str] = (), server_names: Sequence[str] = ()
    ) -> tuple[Path, Path]:
        """Certificate and key files for a client, or for a server (which may be a client too).

        ``server_names``: DNS names and addresses of a server certificate.
        """
        issuer = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
        issuer_key = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
        assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(_name(common_name, groups), issuer.subject, key.public_key())
        if server_names:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
            names = [_general_name(name) for name in server_names]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        certificate = builder.add_extension(authority_key, critical=False).sign(issuer_key, hashes.SHA256())
        certificate_file, key_file = self.folder / f"{file_name}.crt", self.folder / f"{file_name}.key"
        write_file(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        write_file(key_file, key.private_bytes(*_PRIVATE_FORMAT))
        return certificate_file, key_file


def write_kubeconfig(
    state: StateDir, server: str, path: Path, common_name: str, groups: Sequence[str] = ()
) -> None:
    """A kubeconfig with credentials of its own, self-contained."""
    authority = Authority(state.pki)
    certificate, key = authority.issue(common_name.replace(":", "-"), common_name, groups)
    cluster = {"server": server, "certificate-authority-data": _base64(authority.certificate_file)}
    user = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devcluster", "cluster": cluster}],
        "users": [{"name": common_name, "user": user}],
        "contexts": [
            {
                "name": "devcluster",
                "context": {"cluster": "devcluster", "user": common_name, "namespace": "default"},
            }
        ],
        "current-context": "devcluster",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, yaml.safe_dump(document, sort_keys=False))


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _name(common_name: str, groups: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
