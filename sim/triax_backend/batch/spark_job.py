"""The same batch jobs on Spark, for a lake that one machine cannot read: run by the interpreter of its own environment.

With proto/ and sim/ on PYTHONPATH (sim/deploy/engines/install spark):

    python -m triax_backend.batch.spark_job                     the lake of TRIAX_POSTGRES and TRIAX_S3, results into PostgreSQL
    python -m triax_backend.batch.spark_job --compact           rewrite small data files of the lake into large ones
    python -m triax_backend.batch.spark_job --frames F.parquet --out DIR     a file in, Parquet files out: for tests
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ibis
from pyspark.sql import SparkSession

from triax_backend.batch.expressions import COLUMNS
from triax_backend.settings import Settings

__all__ = ["frames_of", "main", "session"]

# The JDBC catalog looks for rows with its own name, so Spark's must be pyiceberg's; it equals the namespace, so name both, always.
_CATALOG = "triax"
_TABLE = f"{_CATALOG}.triax.frames"


def session(settings: Settings | None, jars: Path, memory: str = "1g") -> SparkSession:
    """A local session; with settings, the Iceberg catalog in PostgreSQL and S3A for its files."""
    builder = SparkSession.builder.appName("triax batch").config("spark.driver.memory", memory)
    options = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraClassPath": f"{jars}/*",
        "spark.executor.extraClassPath": f"{jars}/*",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "8",
    }
    if settings is not None:
        options |= _catalog(settings)
    for name, value in options.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def _catalog(settings: Settings) -> dict[str, str]:
    s3, database = settings.s3_parts(), urlsplit(settings.postgres)
    here = f"spark.sql.catalog.{_CATALOG}"
    options = {
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        here: "org.apache.iceberg.spark.SparkCatalog",
        f"{here}.catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog",
        f"{here}.uri": f"jdbc:postgresql://{database.hostname}:{database.port or 5432}{database.path}",
        f"{here}.jdbc.schema-version": "V1",
        f"{here}.jdbc.user": database.username or "",
        f"{here}.jdbc.password": database.password or "",
        f"{here}.warehouse": f"s3://{s3.bucket}/warehouse",
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.s3a.endpoint.region": s3.region,
    }
    if s3.endpoint is not None:
        options |= {
            "spark.hadoop.fs.s3a.endpoint": s3.endpoint,
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.connection.ssl.enabled": str(s3.endpoint.startswith("https")).lower(),
        }
    if s3.key is not None:
        options |= {
            "spark.hadoop.fs.s3a.access.key": s3.key,
            "spark.hadoop.fs.s3a.secret.key": s3.secret or "",
            "spark.hadoop.fs.s3a.aws.credentials.provider": "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
        }
    return options


def frames_of(spark: SparkSession, rows: Any) -> Any:
    """The `frames` table (Ibis) of a Spark data frame with the lake's columns."""
    times = {"at_us": "unix_micros(time) AS at_us", "received_us": "unix_micros(received) AS received_us"}
    rows.selectExpr(*(times.get(name, name) for name in COLUMNS)).createOrReplaceTempView("frames")
    return ibis.pyspark.connect(spark).table("frames")


def compact(spark: SparkSession) -> dict[str, int]:
    """Rewrite small data files; offsets stand in the table's properties and stay."""
    row = spark.sql(f"CALL {_CATALOG}.system.rewrite_data_files(table => '{_TABLE}')").collect()[0]
    return {"rewritten": row["rewritten_data_files_count"], "added": row["added_data_files_count"]}


def main() -> int:
    """Run as a command. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, help="read this Parquet file instead of the lake")
    parser.add_argument("--out", type=Path, help="write Parquet files here instead of PostgreSQL")
    parser.add_argument("--compact", action="store_true", help="rewrite small files of the lake, compute nothing")
    parser.add_argument("--jars", type=Path, default=Path(sys.prefix) / "jars")
    parser.add_argument("--memory", default="1g", help="of the driver")
    options = parser.parse_args()
    from triax_backend.batch import results
    from triax_backend.batch.compute import compute

    settings = None if options.frames else Settings.from_env()
    spark = session(settings, options.jars, options.memory)
    try:
        if options.compact:
            print(json.dumps(compact(spark)))
            return 0
        rows = spark.read.parquet(str(options.frames)) if options.frames else spark.table(_TABLE)
        found = compute(frames_of(spark, rows))
        if options.out:
            import pyarrow.parquet as pq

            options.out.mkdir(parents=True, exist_ok=True)
            for name, table in found.items():
                pq.write_table(table, options.out / f"{name}.parquet")
        else:
            print(json.dumps(results.store(settings or Settings.from_env(), found)))
    finally:
        spark.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
