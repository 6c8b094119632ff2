"""Where the servers are: one URL each, from the environment; a process started by hand and one started by the stack are alike.

TRIAX_MQTT      mqtt://user:password@host:1883      mqtts://host:8883?ca=ca.pem&cert=node.pem&key=node.key
TRIAX_KAFKA     kafka://host:9092,host2:9092        kafkas://user:password@host:9096?ca=ca.pem&mechanism=SCRAM-SHA-512
TRIAX_POSTGRES  postgresql://user:password@host:5432/triax?sslmode=verify-full&sslrootcert=ca.pem
TRIAX_S3        s3://key:secret@host:8333/bucket    s3s:// is TLS; s3s:///bucket is Amazon S3 with its own credentials chain
TRIAX_REDIS     redis://host:6379/0                 rediss://:password@host:6380/0?ssl_ca_certs=ca.pem
"""

import os
from dataclasses import dataclass, fields
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["BadUrl", "S3", "Settings", "masked"]


class BadUrl(ValueError):
    """A server's URL cannot be used; the message shows the form that can."""


def masked(url: str) -> str:
    """The URL with *** for its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)


@dataclass(frozen=True)
class S3:
    """Parts of TRIAX_S3. `endpoint` None: Amazon's own."""

    endpoint: str | None
    bucket: str
    key: str | None
    secret: str | None
    region: str = "us-east-1"

    def __repr__(self) -> str:
        return f"S3(endpoint={self.endpoint!r}, bucket={self.bucket!r})"


@dataclass(frozen=True)
class Settings:
    """URLs of the five servers; see the module's docstring for their forms."""

    mqtt: str = "mqtt://127.0.0.1:1883"
    kafka: str = "kafka://127.0.0.1:9092"
    postgres: str = "postgresql://triax@127.0.0.1:5432/triax"
    s3: str = "s3://triax:triax-secret@127.0.0.1:8333/lake"
    redis: str = "redis://127.0.0.1:6379/0"

    @classmethod
    def from_env(cls, environ: dict[str, str] | None = None) -> "Settings":
        """Settings of TRIAX_* variables, defaults where one is not set."""
        env = os.environ if environ is None else environ
        return cls(**{f.name: env[f"TRIAX_{f.name.upper()}"] for f in fields(cls) if f"TRIAX_{f.name.upper()}" in env})

    def environ(self) -> dict[str, str]:
        """The variables that give these settings to a child process."""
        return {f"TRIAX_{f.name.upper()}": str(getattr(self, f.name)) for f in fields(self)}

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{f.name}={masked(getattr(self, f.name))!r}' for f in fields(self))})"

    def kafka_config(self) -> dict[str, str]:
        """librdkafka's connection properties. Raises BadUrl."""
        parts = urlsplit(self.kafka)
        if parts.scheme not in ("kafka", "kafkas") or not parts.netloc:
            raise BadUrl(
                f"TRIAX_KAFKA is {masked(self.kafka)!r}; want kafka://host:9092 or kafkas://user:password@host:9096?ca=ca.pem"
            )
        query = dict(parse_qsl(parts.query))
        config = {"bootstrap.servers": parts.netloc.rpartition("@")[2]}
        tls, user = parts.scheme == "kafkas", parts.username
        config["security.protocol"] = ("SASL_" if user else "") + ("SSL" if tls else "PLAINTEXT")
        if user:
            config["sasl.mechanism"] = query.get("mechanism", "PLAIN")
            config["sasl.username"] = unquote(user)
            config["sasl.password"] = unquote(parts.password or "")
        for name, key in (("ca", "ssl.ca.location"), ("cert", "ssl.certificate.location"), ("key", "ssl.key.location")):
            if name in query:
                config[key] = query[name]
        return config

    def s3_parts(self) -> S3:
        """Endpoint, bucket and credentials. Raises BadUrl."""
        parts = urlsplit(self.s3)
        bucket = parts.path.strip("/")
        if parts.scheme not in ("s3", "s3s") or not bucket or "/" in bucket:
            raise BadUrl(f"TRIAX_S3 is {masked(self.s3)!r}; want s3://key:secret@host:port/bucket")
        host = parts.netloc.rpartition("@")[2]
        return S3(
            endpoint=f"{'https' if parts.scheme == 's3s' else 'http'}://{host}" if host else None,
            bucket=bucket,
            key=unquote(parts.username) if parts.username else None,
            secret=unquote(parts.password) if parts.password else None,
            region=dict(parse_qsl(parts.query)).get("region", "us-east-1"),
        )
