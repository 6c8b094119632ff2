"""The path on AWS: NLB with TLS passing through, ingest fronts, MSK, the lake's bucket, the database's network, Fargate.

    cd sim/deploy/cdk && ../../../.venv-cdk/bin/python app.py        writes the templates to cdk.out
    -c image=...  -c fronts=4  -c domain=...                          context of `cdk deploy`

The database is TimescaleDB, which AWS does not offer: the stack makes its network and its secret, and takes its host from context.
Nodes come with client certificates, which the fronts check: hence a TCP listener, not a TLS one.
"""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticache as elasticache
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_logs as logs
from aws_cdk import aws_msk as msk
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secrets
from constructs import Construct

__all__ = ["Triax", "app"]

MQTT_TLS, METRICS, KAFKA_SCRAM, POSTGRES, REDIS = 8883, 9100, 9096, 5432, 6379
PARTITIONS = 64  # fixed for the topics' life
# A front takes 6 to 10 us of CPU a frame at QoS 1: 10,000 devices x 10 frames/s are at most one core; four in reserve
FRONTS, FRONT_CPU, FRONT_MEMORY_MIB = 4, 1024, 2048
BROKERS, BROKER_TYPE, BROKER_DISK_GB = 3, "kafka.m7g.large", 500
# 10,000 devices x 2.7 kB/s are 27 MB/s to the brokers, 81 MB/s with replicas: three m7g.large stay below their 50 MB/s each.
RAW_DAYS, LAKE_DAYS = 30, 365
IDLE_S = 350  # nodes ping once a minute

STAGES = {
    "stream": (["triax_backend.stream.runner"], 2048, 4096),
    "sink-timescale": (["triax_backend.sinks.timescale"], 1024, 2048),
    "sink-features": (["triax_backend.sinks.features"], 512, 1024),
    "sink-lake": (["triax_backend.sinks.lake"], 1024, 2048),
    "sink-redis": (["triax_backend.sinks.redis"], 512, 1024),
}


class Triax(cdk.Stack):
    """Everything in one virtual network of two zones or three."""

    def __init__(self, scope: Construct, name: str, **options: object) -> None:
        super().__init__(scope, name, **options)
        self.image = ecs.ContainerImage.from_registry(self._context("image", "triax:latest"))
        self.vpc = ec2.Vpc(
            self,
            "Network",
            max_azs=3,
            nat_gateways=1,
            subnet_configuration=[
                ec2.SubnetConfiguration(name="public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=24),
                ec2.SubnetConfiguration(name="private", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS, cidr_mask=20),
                ec2.SubnetConfiguration(name="database", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24),
            ],
        )
        # The lake's traffic stays off the NAT gateway, which costs by the gigabyte.
        self.vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
        self.processes = ec2.SecurityGroup(self, "Processes", vpc=self.vpc, description="Our processes")
        self.lake = self._lake()
        self.kafka, self.kafka_login = self._kafka()
        self.redis = self._redis()
        self.database = self._database()
        self.cluster = ecs.Cluster(self, "Cluster", vpc=self.vpc, container_insights_v2=ecs.ContainerInsights.ENABLED)
        self.log = logs.LogGroup(self, "Log", retention=logs.RetentionDays.ONE_MONTH)
        self._fronts()
        for stage, (command, cpu, memory) in STAGES.items():
            self._service(stage, command, cpu, memory, count=1)

    def _context(self, name: str, default: str) -> str:
        return str(self.node.try_get_context(name) or default)

    def _lake(self) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            "Lake",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            versioned=True,
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )
        bucket.add_lifecycle_rule(
            noncurrent_version_expiration=cdk.Duration.days(7),
            abort_incomplete_multipart_upload_after=cdk.Duration.days(1),
            transitions=[s3.Transition(storage_class=s3.StorageClass.INTELLIGENT_TIERING, transition_after=cdk.Duration.days(1))],
        )
        return bucket

    def _kafka(self) -> tuple[msk.CfnCluster, secrets.Secret]:
        group = ec2.SecurityGroup(self, "KafkaGroup", vpc=self.vpc, description="Kafka brokers")
        group.add_ingress_rule(self.processes, ec2.Port.tcp(KAFKA_SCRAM), "our processes, SASL/SCRAM over TLS")
        settings = msk.CfnConfiguration(
            self,
            "KafkaSettings",
            name=f"{self.stack_name}-kafka",
            kafka_versions_list=["4.1.x.kraft"],
            server_properties=(
                "auto.create.topics.enable=false\nmin.insync.replicas=2\ndefault.replication.factor=3\n"
                f"num.partitions={PARTITIONS}\ntransaction.state.log.min.isr=2\nunclean.leader.election.enable=false\n"
            ),
        )
        cluster = msk.CfnCluster(
            self,
            "Kafka",
            cluster_name=f"{self.stack_name}-kafka",
            kafka_version="4.1.x.kraft",
            number_of_broker_nodes=BROKERS,
            broker_node_group_info=msk.CfnCluster.BrokerNodeGroupInfoProperty(
                client_subnets=self.vpc.select_subnets(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS).subnet_ids,
                instance_type=BROKER_TYPE,
                security_groups=[group.security_group_id],
                storage_info=msk.CfnCluster.StorageInfoProperty(
                    ebs_storage_info=msk.CfnCluster.EBSStorageInfoProperty(volume_size=BROKER_DISK_GB)
                ),
            ),
            client_authentication=msk.CfnCluster.ClientAuthenticationProperty(
                sasl=msk.CfnCluster.SaslProperty(scram=msk.CfnCluster.ScramProperty(enabled=True))
            ),
            configuration_info=msk.CfnCluster.ConfigurationInfoProperty(arn=settings.attr_arn, revision=1),
            encryption_info=msk.CfnCluster.EncryptionInfoProperty(
                encryption_in_transit=msk.CfnCluster.EncryptionInTransitProperty(client_broker="TLS", in_cluster=True)
            ),
            enhanced_monitoring="PER_TOPIC_PER_BROKER",
        )
        # MSK takes a login from a secret of this name, under a key of one's own.
        login = secrets.Secret(
            self,
            "KafkaLogin",
            secret_name=f"AmazonMSK_{self.stack_name}",
            encryption_key=cdk.aws_kms.Key(self, "KafkaLoginKey", enable_key_rotation=True),
            generate_secret_string=secrets.SecretStringGenerator(
                secret_string_template='{"username": "triax"}', generate_string_key="password", exclude_punctuation=True
            ),
        )
        msk.CfnBatchScramSecret(self, "KafkaScram", cluster_arn=cluster.attr_arn, secret_arn_list=[login.secret_arn])
        return cluster, login

    def _redis(self) -> elasticache.CfnServerlessCache:
        group = ec2.SecurityGroup(self, "RedisGroup", vpc=self.vpc, description="Redis")
        group.add_ingress_rule(self.processes, ec2.Port.tcp(REDIS), "our processes")
        return elasticache.CfnServerlessCache(
            self,
            "Redis",
            engine="valkey",
            serverless_cache_name=f"{self.stack_name.lower()}-latest",
            security_group_ids=[group.security_group_id],
            subnet_ids=self.vpc.select_subnets(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS).subnet_ids[:2],
        )

    def _database(self) -> secrets.Secret:
        """Network and login of the database; the server itself is TimescaleDB on machines or a service of your own."""
        group = ec2.SecurityGroup(
            self, "DatabaseGroup", vpc=self.vpc, description="PostgreSQL with TimescaleDB", allow_all_outbound=False
        )
        group.add_ingress_rule(self.processes, ec2.Port.tcp(POSTGRES), "our processes")
        cdk.CfnOutput(self, "DatabaseGroupId", value=group.security_group_id)
        return secrets.Secret(
            self,
            "DatabaseUrl",
            description="postgresql://user:password@host:5432/triax?sslmode=verify-full; set it once the database is there",
        )

    def _settings(self) -> tuple[dict[str, str], dict[str, ecs.Secret]]:
        plain = {
            "TRIAX_S3": f"s3s:///{self.lake.bucket_name}?region={self.region}",
            "TRIAX_REDIS": f"rediss://{self.redis.attr_endpoint_address}:{REDIS}/0",
        }
        hidden = {
            "TRIAX_POSTGRES": ecs.Secret.from_secrets_manager(self.database),
            "TRIAX_KAFKA": ecs.Secret.from_secrets_manager(self._kafka_url()),
        }
        return plain, hidden

    def _kafka_url(self) -> secrets.Secret:
        found = self.node.try_find_child("KafkaUrl")
        return found or secrets.Secret(  # type: ignore[return-value]
            self,
            "KafkaUrl",
            description="kafkas://triax:password@brokers:9096?mechanism=SCRAM-SHA-512, from AmazonMSK_ and the cluster",
        )

    def _service(self, name: str, command: list[str], cpu: int, memory: int, count: int) -> ecs.FargateService:
        task = ecs.FargateTaskDefinition(self, f"{name}-task", cpu=cpu, memory_limit_mib=memory)
        self.lake.grant_read_write(task.task_role)
        plain, hidden = self._settings()
        task.add_container(
            name,
            image=self.image,
            command=[*command, "--metrics-port", str(METRICS)],
            environment=plain,
            secrets=hidden,
            logging=ecs.LogDrivers.aws_logs(stream_prefix=name, log_group=self.log),
            stop_timeout=cdk.Duration.seconds(60),
            port_mappings=[ecs.PortMapping(container_port=METRICS)],
            ulimits=[ecs.Ulimit(name=ecs.UlimitName.NOFILE, soft_limit=65_536, hard_limit=65_536)],
        )
        return ecs.FargateService(
            self,
            name,
            cluster=self.cluster,
            task_definition=task,
            desired_count=count,
            security_groups=[self.processes],
            # A stage that owns Kafka partitions is replaced, never doubled.
            min_healthy_percent=0 if count == 1 else 50,
            max_healthy_percent=100 if count == 1 else 200,
            circuit_breaker=ecs.DeploymentCircuitBreaker(rollback=True),
        )

    def _fronts(self) -> None:
        """Ingest fronts behind a balancer that passes TLS through and keeps the node's address."""
        outside = ec2.SecurityGroup(self, "BalancerGroup", vpc=self.vpc, description="Nodes to the balancer")
        outside.add_ingress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(MQTT_TLS), "MQTT over TLS")
        balancer = elb.NetworkLoadBalancer(
            self, "Balancer", vpc=self.vpc, internet_facing=True, cross_zone_enabled=True, security_groups=[outside]
        )
        listener = balancer.add_listener("Mqtt", port=MQTT_TLS, protocol=elb.Protocol.TCP)
        count = int(self._context("fronts", str(FRONTS)))
        command = ["triax_backend.ingest", "--host", "0.0.0.0", "--port", str(MQTT_TLS), "--identity", "tls"]
        command += ["--cert", "/run/triax/front.pem", "--key", "/run/triax/front.key", "--ca", "/run/triax/devices.pem"]
        service = self._service("ingest", command, FRONT_CPU, FRONT_MEMORY_MIB, count)
        container = service.task_definition.default_container
        container.add_port_mappings(ecs.PortMapping(container_port=MQTT_TLS))
        self.processes.add_ingress_rule(outside, ec2.Port.tcp(MQTT_TLS), "the balancer")
        self._certificates(service.task_definition, container)
        target = service.load_balancer_target(container_name="ingest", container_port=MQTT_TLS)
        listener.add_targets(
            "Fronts",
            port=MQTT_TLS,
            protocol=elb.Protocol.TCP,
            preserve_client_ip=True,
            deregistration_delay=cdk.Duration.seconds(30),
            health_check=elb.HealthCheck(protocol=elb.Protocol.TCP, interval=cdk.Duration.seconds(10)),
            targets=[target],
        )
        listener.node.default_child.add_property_override(
            "ListenerAttributes", [{"Key": "tcp.idle_timeout.seconds", "Value": str(IDLE_S)}]
        )
        scaling = service.auto_scale_task_count(min_capacity=count, max_capacity=4 * count)
        scaling.scale_on_cpu_utilization("Cpu", target_utilization_percent=60)
        cdk.CfnOutput(self, "MqttHost", value=balancer.load_balancer_dns_name)

    def _certificates(self, task: ecs.FargateTaskDefinition, container: ecs.ContainerDefinition) -> None:
        """A container that writes the front's certificate, its key and the devices' CA into a shared volume, then ends."""
        task.add_volume(name="certificates")
        secret = secrets.Secret(self, "FrontCertificates", description='JSON: {"cert": "...", "key": "...", "ca": "..."}, PEM each')
        names = {"cert": "front.pem", "key": "front.key", "ca": "devices.pem"}
        script = " && ".join(f"printenv {name.upper()} > /run/triax/{file}" for name, file in names.items())
        writer = task.add_container(
            "certificates",
            image=ecs.ContainerImage.from_registry("public.ecr.aws/docker/library/busybox:stable"),
            entry_point=["sh", "-c"],
            command=[f"umask 077 && {script} && chown -R 1000 /run/triax"],
            essential=False,
            secrets={name.upper(): ecs.Secret.from_secrets_manager(secret, name) for name in names},
            logging=ecs.LogDrivers.aws_logs(stream_prefix="certificates", log_group=self.log),
        )
        for one in (writer, container):
            one.add_mount_points(
                ecs.MountPoint(container_path="/run/triax", source_volume="certificates", read_only=one is container)
            )
        container.add_container_dependencies(
            ecs.ContainerDependency(container=writer, condition=ecs.ContainerDependencyCondition.SUCCESS)
        )


def app(outdir: str | None = None) -> cdk.App:
    """The application with its one stack."""
    made = cdk.App(outdir=outdir)
    # No lookups: the templates are the same on every machine.
    stack = Triax(made, "Triax", description="triax: accelerometers over MQTT into Kafka, TimescaleDB, Iceberg")
    cdk.Tags.of(stack).add("application", "triax")
    return made


if __name__ == "__main__":
    app().synth()
