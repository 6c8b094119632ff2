"""A certificate authority of one's own: one certificate for the broker, one for each node, signed by a key that stays at home."""

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["NODE_DAYS", "Authority", "to_der"]

_CA_DAYS = 20 * 365
# Renewing a thousand nodes is work, a stolen key is worth as much as it lasts: between a year and for ever.
NODE_DAYS = 5 * 365
# Clocks that are a little behind must accept what was issued just now.
_BACKDATE = datetime.timedelta(hours=1)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _write_secret(path: Path, data: bytes) -> None:
    """Readable by its owner only, from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


class Authority:
    """The authority in a folder: `ca.pem`, `ca.key`. Made at first use; ValueError where only its certificate is there.

    P-256 keys: a handshake with them takes an ESP32 a second, with RSA-2048 four.
    """

    def __init__(self, folder: Path, name: str = "triax") -> None:
        self.folder = folder
        self.certificate_path = folder / "ca.pem"
        key_path = folder / "ca.key"
        if key_path.exists():
            key = serialization.load_pem_private_key(key_path.read_bytes(), None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError(f"{key_path} holds no key of an elliptic curve: it was not made by triax")
            self._key = key
            self.certificate = x509.load_pem_x509_certificate(self.certificate_path.read_bytes())
            return
        if self.certificate_path.exists():
            raise ValueError(f"{key_path} is not there: bring it back for as long as certificates are issued")
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority")])
        self.certificate = (
            self._builder(subject, self._key.public_key(), _CA_DAYS, issuer=subject)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        _write_secret(key_path, _key_pem(self._key))
        self.certificate_path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue_server(self, hosts: list[str], days: int = NODE_DAYS, stem: str = "broker") -> tuple[Path, Path]:
        """Certificate and key of the broker for these names and addresses: (certificate, key) as PEM files."""
        if not hosts:
            raise ValueError("a broker needs the name or address that nodes call it by")
        names = x509.SubjectAlternativeName([_name(host) for host in hosts])
        return self._issue(hosts[0], stem, days, ExtendedKeyUsageOID.SERVER_AUTH, names)

    def issue_client(self, name: str, days: int = NODE_DAYS) -> tuple[Path, Path]:
        """Certificate and key of a node; its common name is the MQTT user name."""
        return self._issue(name, name, days, ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _issue(
        self, name: str, stem: str, days: int, usage: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            self._builder(subject, key.public_key(), days, issuer=self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        certificate_path, key_path = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        _write_secret(key_path, _key_pem(key))
        certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return certificate_path, key_path

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int, issuer: x509.Name) -> x509.CertificateBuilder:
        end = _now() + datetime.timedelta(days=days)
        begin = min(_now(), end) - _BACKDATE
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


def to_der(path: Path) -> bytes:
    """A certificate or key file as DER, which is what MicroPython's TLS takes."""
    data = path.read_bytes()
    if b"PRIVATE KEY" in data:
        key = serialization.load_pem_private_key(data, None)
        return key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    return x509.load_pem_x509_certificate(data).public_bytes(serialization.Encoding.DER)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
