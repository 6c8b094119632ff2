"""What a model is, in words and numbers: Markdown for people, JSON for programs, both beside the model's file."""

import json
from typing import Any

__all__ = ["card"]

_WINDOW = """Windows of ten frames (one second) that are unlike those of a fleet that was mostly well. The score is minus the log
of the density of a mixture of normal distributions over {features}; larger is stranger."""
_RAW = """Which defect of a rolling bearing a raw capture shows, by the orders of its envelope spectrum ({count} features). A
forest of decision trees; the probability is the share of trees."""
_LIMITS = {
    "window": """It knows no machine by itself: a machine that has always been strange is strange, one that slowly gets worse
    within what the
others do is not. Speeds and loads that the training did not see score high. Not a safety function.""",
    "raw": """It needs half a second of capture and a shaft line between 5 and 100 Hz, and it knows the bearings whose geometry
    it was
trained on: other bearings have other orders. Not a safety function.""",
}


def card(name: str, version: str, scope: str, report: dict[str, Any], data: dict[str, Any]) -> tuple[str, str]:
    """Markdown and JSON of a model. `data`: where its training data came from."""
    features = report["features"]
    what = (_WINDOW if scope == "window" else _RAW).format(features=", ".join(features), count=len(features))
    lines = [f"# {name} {version}", "", what, "", "## Data", ""]
    lines += [f"- {key}: {value}" for key, value in data.items()]
    lines += ["", "## Split", "", "By device and time: no machine is in two parts." if scope == "window" else "By device.", ""]
    for part in ("train", "tune", "test"):
        if part in report:
            said = ", ".join(f"{value} {key}" for key, value in report[part].items() if isinstance(value, int))
            lines.append(f"- {part}: {said}")
    lines += ["", "## Measured on the test part", ""]
    lines += _measured(report)
    lines += ["", "## Limits", "", _LIMITS[scope], ""]
    whole = {"name": name, "version": version, "scope": scope, "data": data, "report": report}
    return "\n".join(lines), json.dumps(whole, indent=1, sort_keys=True, default=str)


def _measured(report: dict[str, Any]) -> list[str]:
    test = report["test"]
    if "confusion" not in test:
        share = test.get("share_above")
        said = "no window was left for it" if share is None else f"{share:.2%} of its windows are above the threshold"
        return [f"- threshold {report['threshold']:.2f}; {said}"]
    lines = [f"- accuracy {test['accuracy']:.3f}", "", "| label | precision | recall |", "|---|---|---|"]
    lines += [f"| {name} | {test[name]['precision']:.2f} | {test[name]['recall']:.2f} |" for name in report["labels"]]
    return lines
