import pytest
from triax_backend.settings import BadUrl, Settings


def test_environment_round_trip():
    settings = Settings(kafka="kafka://a:1", redis="redis://b:2/0")
    assert Settings.from_env(settings.environ()) == settings
    assert Settings.from_env({}) == Settings()


def test_kafka_with_tls_and_password():
    config = Settings(kafka="kafkas://me:p%40ss@h:9096,h2:9096?ca=ca.pem&mechanism=SCRAM-SHA-512").kafka_config()
    assert config == {
        "bootstrap.servers": "h:9096,h2:9096",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": "p@ss",
        "ssl.ca.location": "ca.pem",
    }
    assert Settings(kafka="kafka://h:9092").kafka_config() == {"bootstrap.servers": "h:9092", "security.protocol": "PLAINTEXT"}


def test_s3_ours_and_amazons():
    ours = Settings(s3="s3://key:se%2Fcret@h:8333/lake").s3_parts()
    assert (ours.endpoint, ours.bucket, ours.key, ours.secret) == ("http://h:8333", "lake", "key", "se/cret")
    amazon = Settings(s3="s3s:///lake?region=eu-central-1").s3_parts()
    assert (amazon.endpoint, amazon.key, amazon.region) == (None, None, "eu-central-1")


def test_secrets_are_masked():
    settings = Settings(kafka="kafkas://me:hidden@h:1", s3="s3://key:hidden@h:1/b", postgres="postgresql://u:hidden@h/d")
    assert "hidden" not in repr(settings) + repr(settings.s3_parts())


@pytest.mark.parametrize("url", ["http://h:1", "kafka://", "h:9092"])
def test_bad_kafka_url_shows_the_form(url):
    with pytest.raises(BadUrl, match="kafka://host:9092"):
        Settings(kafka=url).kafka_config()


@pytest.mark.parametrize("url", ["s3://h:1", "s3://h:1/a/b", "h:8333/lake"])
def test_bad_s3_url_shows_the_form(url):
    with pytest.raises(BadUrl, match="s3://key:secret@host:port/bucket"):
        Settings(s3=url).s3_parts()
