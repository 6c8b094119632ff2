"""A certificate authority for tests and demos: one for the server, one for each device, named by its EUI-64."""

import datetime
import ipaddress
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from triax_proto.names import device_text

__all__ = ["Authority"]

_DAYS = 30  # of validity: these are for runs, not for nodes in the field
_UNENCRYPTED = serialization.NoEncryption()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """Writes PEM files into `folder`: ca.pem, server.pem (certificate and key), <device>.pem."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name("triax test authority")
        self._certificate = self._signed(self._subject, self._key, ca=True, usage=None, names=[])
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        ca: bool,
        usage: x509.ObjectIdentifier | None,
        names: list[x509.GeneralName],
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=_DAYS))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, path: Path, subject: str, usage: x509.ObjectIdentifier, names: list[x509.GeneralName]) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(_name(subject), key, ca=False, usage=usage, names=names)
        pem = serialization.Encoding.PEM
        secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, _UNENCRYPTED)
        path.touch(mode=0o600)
        path.write_bytes(certificate.public_bytes(pem) + secret)
        return path

    def server(self, host: str = "127.0.0.1") -> Path:
        """Certificate and key of a server at this address, and at localhost."""
        names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(host))]
        return self._write(self.folder / "server.pem", "triax server", ExtendedKeyUsageOID.SERVER_AUTH, names)

    def devices(self, devices: Iterable[int]) -> Path:
        """Certificate and key of each device, its EUI-64 as common name; the folder, for Target.certificates."""
        for device in devices:
            text = device_text(device)
            self._write(self.folder / f"{text}.pem", text, ExtendedKeyUsageOID.CLIENT_AUTH, [])
        return self.folder
