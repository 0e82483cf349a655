"""Read the answer of /metrics."""

from app.metrics.series import CONTENT_TYPE


def read_metrics(client):
    """Return the value of each series as it is now, by its name and labels in the answer."""
    client.application.services.metrics.publish()  # or it might be a second old
    answer = client.get("/metrics")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, CONTENT_TYPE)
    return values_in(answer.text)


def values_in(text):
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, value in lines}
