"""Grafana's files out of one list of panels: python sim/deploy/grafana/build.py writes dashboards/*.json and the alert rules.

Panels name their SQL (TimescaleDB or plain PostgreSQL, the same statement) or their Prometheus expression; a test runs every one.
$__timeFilter, $__timeFrom, $__timeTo and $__interval are the plugin's; $device is a device's 16 hex digits.
"""

import json
from pathlib import Path

HERE = Path(__file__).parent
SQL = {"type": "grafana-postgresql-datasource", "uid": "triax-postgres"}
PROMETHEUS = {"type": "prometheus", "uid": "triax-prometheus"}
REDIS = {"type": "redis-datasource", "uid": "triax-redis"}
# A device's rows without a function on the column, so that the index is used.
DEVICE = "device = ('x' || '$device')::bit(64)::bigint"
BUCKET = "date_bin('$__interval', time, '2000-01-03 00:00:00+00')"
HEALTHY, WARNING, BAD = "green", "orange", "red"


def panel(title, kind, sql=None, *, unit="short", width=12, height=8, steps=None, expression=None, redis=None, note=""):
    """One panel. `kind`: timeseries, stat, table, barchart, state-timeline; `steps`: (value, colour) of thresholds."""
    if sql:
        form = "table" if kind in ("table", "stat", "barchart") else "time_series"
        target = {"datasource": SQL, "rawQuery": True, "rawSql": sql, "format": form, "editorMode": "code", "refId": "A"}
        source = SQL
    elif expression:
        target = {"datasource": PROMETHEUS, "expr": expression, "legendFormat": "{{stage}}", "refId": "A"}
        source = PROMETHEUS
    else:
        target, source = {"datasource": REDIS, "refId": "A", **redis}, REDIS
    limits = [{"color": HEALTHY, "value": None}, *({"color": colour, "value": value} for value, colour in steps or ())]
    return {
        "title": title,
        "description": note,
        "type": kind,
        "datasource": source,
        "targets": [target],
        "fieldConfig": {"defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": limits}}, "overrides": []},
        "options": {},
        "size": (width, height),
    }


def axes(name, table="features", where="windows = 1 AND ", time="time"):
    """Three series over time of one quantity of $device."""
    columns = ", ".join(f"max({name}_{axis}) AS {axis}" for axis in "xyz")
    bucket = BUCKET.replace("time", time)
    return f"SELECT {bucket} AS time, {columns} FROM {table} WHERE {where}{DEVICE} AND $__timeFilter({time}) GROUP BY 1 ORDER BY 1"


FLEET = [
    panel("Devices", "stat", "SELECT count(*) AS devices FROM devices", width=4, height=4),
    panel("Online", "stat", "SELECT count(*) FILTER (WHERE online) AS online FROM devices", width=4, height=4),
    panel(
        "Frames a second",
        "stat",
        "SELECT sum(frames) / 60.0 AS frames FROM features WHERE windows = 1 AND received > now() - interval '1 minute'",
        width=4,
        height=4,
    ),
    panel(
        "Events in the range",
        "stat",
        "SELECT count(*) AS events FROM events WHERE $__timeFilter(time)",
        width=4,
        height=4,
        steps=[(1, WARNING)],
    ),
    panel(
        "Devices by rise of the rms",
        "table",
        "SELECT place, lpad(to_hex(device), 16, '0') AS device, rise, rms_g, peak_g, until FROM batch_ranking ORDER "
        "BY place LIMIT 20",
        width=8,
        height=8,
        note="Batch job: rms of the last hour over the mean of the hours before, largest axis",
    ),
    panel(
        "Vibration of the fleet (rms, quartiles)",
        "timeseries",
        f"SELECT {BUCKET} AS time, percentile_cont(0.5) WITHIN GROUP (ORDER BY greatest(rms_x, rms_y, rms_z)) AS median, "
        "percentile_cont(0.9) WITHIN GROUP (ORDER BY greatest(rms_x, rms_y, rms_z)) AS p90, max(greatest(rms_x, "
        "rms_y, rms_z)) AS highest "
        "FROM features WHERE windows = 60 AND $__timeFilter(time) GROUP BY 1 ORDER BY 1",
        unit="accG",
        width=16,
    ),
    panel(
        "Events by kind",
        "timeseries",
        f"SELECT {BUCKET} AS time, kind AS metric, count(*) AS value FROM events WHERE $__timeFilter(time) GROUP BY "
        f"1, 2 ORDER BY 1",
        width=12,
    ),
    panel(
        "Newest events",
        "table",
        "SELECT time, lpad(to_hex(device), 16, '0') AS device, kind, axis, score FROM events WHERE $__timeFilter(time) "
        "ORDER BY time DESC LIMIT 100",
        width=12,
    ),
    panel(
        "Strangest devices by the model",
        "table",
        "SELECT lpad(to_hex(device), 16, '0') AS device, score, share_above, model, until FROM batch_unusual "
        "WHERE model = (SELECT model FROM batch_unusual ORDER BY until DESC LIMIT 1) ORDER BY score DESC LIMIT 20",
        width=12,
    ),
    panel(
        "Drift of the rms, g a day",
        "table",
        "SELECT lpad(to_hex(device), 16, '0') AS device, hours, rms_x_g_per_day, rms_y_g_per_day, rms_z_g_per_day, "
        "greatest(explained_x, explained_y, explained_z) AS explained FROM batch_trend "
        "ORDER BY greatest(abs(rms_x_g_per_day), abs(rms_y_g_per_day), abs(rms_z_g_per_day)) DESC LIMIT 20",
        width=12,
    ),
]

ONE = [
    panel("Rms", "timeseries", axes("rms"), unit="accG"),
    panel("Peak", "timeseries", axes("peak"), unit="accG"),
    panel("Crest factor", "timeseries", axes("crest")),
    panel("Mean", "timeseries", axes("mean"), unit="accG"),
    panel(
        "Rms by the minute",
        "timeseries",
        axes("rms", "features_1m", "", "bucket"),
        unit="accG",
    ),
    panel(
        "Temperature",
        "timeseries",
        f"SELECT {BUCKET} AS time, avg(temperature_c) AS temperature FROM features WHERE windows = 1 AND {DEVICE} AND "
        f"$__timeFilter(time) "
        "GROUP BY 1 ORDER BY 1",
        unit="celsius",
    ),
    panel(
        "Scores",
        "timeseries",
        f"SELECT {BUCKET} AS time, max(spike_score) AS spike, max(score) AS model FROM features "
        f"WHERE windows = 1 AND {DEVICE} AND $__timeFilter(time) GROUP BY 1 ORDER BY 1",
    ),
    panel(
        "Events",
        "table",
        f"SELECT time, kind, axis, score, detail FROM events WHERE {DEVICE} AND $__timeFilter(time) ORDER BY time DESC LIMIT 100",
    ),
    panel(
        "Lines of the newest captures",
        "table",
        f"SELECT time, capture, axis, kind, lines_hz[1:5] AS hz, lines_g[1:5] AS g FROM batch_spectra WHERE {DEVICE} "
        "ORDER BY time DESC, kind, axis LIMIT 12",
    ),
    panel(
        "What the captures show",
        "table",
        f"SELECT time, capture, label, probability, model FROM batch_scores WHERE {DEVICE} ORDER BY time DESC LIMIT 20",
    ),
    panel(
        "The device",
        "table",
        f"SELECT id, online, part, board, firmware, boot, status_time FROM devices WHERE {DEVICE}",
        width=24,
        height=4,
    ),
]

QUALITY = [
    panel(
        "Missing frames, share",
        "timeseries",
        "SELECT day AS time, sum(missing)::double precision / nullif(sum(frames + missing), 0) AS missing FROM batch_quality "
        "WHERE $__timeFilter(day) GROUP BY 1 ORDER BY 1",
        unit="percentunit",
        steps=[(0.001, WARNING), (0.01, BAD)],
    ),
    panel(
        "Windows with a hole, now",
        "timeseries",
        f"SELECT {BUCKET} AS time, avg((frames < 10)::int) AS share FROM features WHERE windows = 1 AND $__timeFilter(time) "
        "GROUP BY 1 ORDER BY 1",
        unit="percentunit",
    ),
    panel(
        "Worst devices",
        "table",
        "SELECT lpad(to_hex(device), 16, '0') AS device, sum(missing) AS missing, sum(lost_samples) AS lost_samples, "
        "sum(repeats) AS repeats, "
        "sum(conflicts) AS conflicts, sum(late) AS late, sum(saturated) AS saturated, sum(clock_stepped) AS clock_stepped "
        "FROM batch_quality WHERE $__timeFilter(day) GROUP BY device ORDER BY 2 DESC, 3 DESC LIMIT 50",
        width=24,
    ),
    panel(
        "Flags, frames a day",
        "barchart",
        "SELECT day::text AS day, sum(overrun) AS overrun, sum(bus_error) AS bus_error, sum(axis_resync) AS axis_resync, "
        "sum(saturated) AS saturated, sum(clock_stepped) AS clock_stepped, sum(rate_suspect) AS rate_suspect "
        "FROM batch_quality WHERE $__timeFilter(day) GROUP BY day ORDER BY day",
    ),
    panel(
        "Late: from sample to database",
        "timeseries",
        f"SELECT {BUCKET} AS time, percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM received - time)) AS median, "
        "percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM received - time)) AS p99 "
        "FROM features WHERE windows = 1 AND own_clock AND $__timeFilter(time) GROUP BY 1 ORDER BY 1",
        unit="s",
    ),
    panel(
        "Devices without a clock of their own",
        "stat",
        "SELECT count(DISTINCT device) AS devices FROM features WHERE NOT own_clock AND $__timeFilter(time)",
        width=6,
        height=4,
        steps=[(1, WARNING)],
    ),
    panel(
        "Glitches taken out",
        "stat",
        "SELECT coalesce(sum(glitches), 0) AS glitches FROM features WHERE windows = 1 AND $__timeFilter(time)",
        width=6,
        height=4,
    ),
    panel(
        "Conflicts of identity",
        "stat",
        "SELECT count(*) AS conflicts FROM events WHERE kind = 'IDENTITY_CONFLICT' AND $__timeFilter(time)",
        width=6,
        height=4,
        steps=[(1, BAD)],
    ),
    panel(
        "Refused models",
        "stat",
        "SELECT count(*) AS models FROM events WHERE kind = 'MODEL_REJECTED' AND $__timeFilter(time)",
        width=6,
        height=4,
        steps=[(1, BAD)],
    ),
]

PIPELINE = [
    panel("Frames a second, by stage", "timeseries", expression="sum by (stage) (rate(triax_frames_in_total[1m]))", unit="ops"),
    panel("Delivered a second, by stage", "timeseries", expression="sum by (stage) (rate(triax_frames_out_total[1m]))", unit="ops"),
    panel("In flight", "timeseries", expression="sum by (stage) (triax_frames_in_flight)"),
    panel("Lag, records", "timeseries", expression="sum by (stage) (triax_lag_records)", steps=[(10_000, WARNING)]),
    panel(
        "The account does not close",
        "timeseries",
        expression="sum by (stage) (triax_frames_in_total) - sum by (stage) (triax_frames_out_total) - (sum by (stage) "
        "(triax_frames_dead_total) or 0 * sum by (stage) (triax_frames_in_total)) - sum by (stage) (triax_frames_repeated_total) "
        "- sum by (stage) (triax_frames_returned_total) - sum by (stage) (triax_frames_in_flight)",
        note="in - out - dead - repeats - returned - in flight: 0 at rest",
    ),
    panel("Repeats a second", "timeseries", expression="sum by (stage) (rate(triax_frames_repeated_total[1m]))", unit="ops"),
    panel(
        "Dead letters a second", "timeseries", expression="sum by (stage, cause) (rate(triax_frames_dead_total[5m]))", unit="ops"
    ),
    panel(
        "Failed deliveries",
        "timeseries",
        expression="sum by (stage) (increase(triax_deliveries_failed_total[5m]))",
        steps=[(1, WARNING)],
    ),
    panel(
        "Time of a delivery, 99 %",
        "timeseries",
        expression="histogram_quantile(0.99, sum by (stage, le) (rate(triax_flush_seconds_bucket[5m])))",
        unit="s",
    ),
    panel(
        "Where the sinks are in Kafka",
        "table",
        "SELECT sink, topic, partition, next_offset, updated, now() - updated AS age FROM sink_partitions ORDER BY "
        "updated LIMIT 100",
        width=12,
    ),
    panel("Memory of Redis", "table", redis={"type": "command", "command": "info", "section": "memory"}, width=12),
]

DASHBOARDS = {
    "fleet": ("triax: fleet", FLEET),
    "device": ("triax: one device", ONE),
    "quality": ("triax: data quality", QUALITY),
    "pipeline": ("triax: pipeline health", PIPELINE),
}

# uid, title, SQL that gives one number, firing above, for how long, what to do
ALERTS = [
    (
        "triax-silent",
        "Devices went silent",
        "SELECT count(*) AS value FROM devices WHERE online IS FALSE AND status_time > now() - interval '1 day'",
        0,
        "2m",
        "Look at the device's power and network; its spool holds what it measures meanwhile.",
    ),
    (
        "triax-bearing",
        "A bearing is suspect",
        "SELECT count(*) AS value FROM events WHERE kind = 'BEARING' AND received > now() - interval '10 minutes'",
        0,
        "0s",
        "Ask for a raw capture of the device and see its envelope spectrum.",
    ),
    (
        "triax-dead-axis",
        "An axis is dead",
        "SELECT count(*) AS value FROM events WHERE kind = 'DEAD_AXIS' AND received > now() - interval '10 minutes'",
        0,
        "0s",
        "Run the part's self-test; replace it if that fails.",
    ),
    (
        "triax-missing",
        "Frames are missing",
        "SELECT coalesce(avg((frames < 10)::int), 0) AS value FROM features WHERE windows = 1 AND received > now() - "
        "interval '5 minutes'",
        0.01,
        "5m",
        "One window in a hundred has a hole: see data quality, then the pipeline's dead letters.",
    ),
    (
        "triax-behind",
        "A sink is behind",
        "SELECT coalesce(max(extract(epoch FROM now() - updated)), 0) AS value FROM sink_partitions",
        60,
        "2m",
        "Look at the sink's /health and log; nothing is lost while Kafka keeps the records.",
    ),
    (
        "triax-conflict",
        "Two frames of one identity",
        "SELECT count(*) AS value FROM events WHERE kind = 'IDENTITY_CONFLICT' AND received > now() - interval '1 hour'",
        0,
        "0s",
        "Two nodes share an EUI-64, or a start counter went backwards: see the dead letters.",
    ),
]


def dashboard(uid, title, panels):
    """The JSON of a dashboard, panels in rows of 24 columns."""
    out, x, y, tallest = [], 0, 0, 0
    for number, one in enumerate(panels, 1):
        width, height = one["size"]
        if x + width > 24:
            x, y, tallest = 0, y + tallest, 0
        place = {"x": x, "y": y, "w": width, "h": height}
        out.append({"id": number, "gridPos": place, **{key: value for key, value in one.items() if key != "size"}})
        x, tallest = x + width, max(tallest, height)
    device = {
        "name": "device",
        "label": "Device",
        "type": "query",
        "datasource": SQL,
        "query": "SELECT id FROM devices ORDER BY id",
        "definition": "SELECT id FROM devices ORDER BY id",
        "refresh": 2,
        "sort": 1,
    }
    return {
        "uid": f"triax-{uid}",
        "title": title,
        "tags": ["triax"],
        "timezone": "utc",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "schemaVersion": 41,
        "templating": {"list": [device] if uid == "device" else []},
        "panels": out,
    }


def rule(uid, title, sql, above, wait, advice):
    """One alert rule: the query's number, reduced to its last value, above a limit."""
    query = {"datasource": SQL, "rawQuery": True, "rawSql": sql, "format": "table", "refId": "A"}
    span = {"from": 600, "to": 0}
    condition = {
        "type": "threshold",
        "expression": "A",
        "refId": "B",
        "datasource": {"type": "__expr__", "uid": "__expr__"},
        "conditions": [{"evaluator": {"type": "gt", "params": [above]}}],
    }
    return {
        "uid": uid,
        "title": title,
        "condition": "B",
        "for": wait,
        "noDataState": "OK",
        "execErrState": "Error",
        "annotations": {"summary": title, "description": advice},
        "labels": {"team": "triax"},
        "data": [
            {"refId": "A", "relativeTimeRange": span, "datasourceUid": SQL["uid"], "model": query},
            {"refId": "B", "relativeTimeRange": span, "datasourceUid": "__expr__", "model": condition},
        ],
    }


def files():
    """Every generated file by its path below this directory."""
    out = {}
    for uid, (title, panels) in DASHBOARDS.items():
        out[f"dashboards/{uid}.json"] = json.dumps(dashboard(uid, title, panels), indent=1) + "\n"
    group = {"orgId": 1, "name": "triax", "folder": "triax", "interval": "1m", "rules": [rule(*one) for one in ALERTS]}
    # JSON is YAML
    out["provisioning/alerting/rules.yaml"] = json.dumps({"apiVersion": 1, "groups": [group]}, indent=1) + "\n"
    return out


if __name__ == "__main__":
    for path, text in files().items():
        (HERE / path).write_text(text)
