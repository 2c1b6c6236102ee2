"""Write the tables of docs/costs.md: monthly cost of each part of the stack on AWS, from prices and measurements."""

from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "costs.md"
BEGIN, END = "<!-- written by scripts/costs.py -->", "<!-- end -->"
PHOTOS = (10_000, 1_000_000, 100_000_000)

PRICES = {
    "lambda_request": (0.20e-6, "Lambda, a request"),
    "lambda_gb_second": (0.0000166667, "Lambda (x86), a GB-second"),
    "log_gb": (0.50, "CloudWatch Logs, a GB taken in"),
    "metric": (0.30, "CloudWatch, a metric of our own"),
    "alarm_metric": (0.10, "CloudWatch, a metric that an alarm looks at"),
    "dashboard": (3.00, "CloudWatch, a dashboard"),
    "trace": (5e-6, "X-Ray, a trace recorded"),
    "out_gb": (0.09, "Data sent to the internet, a GB"),
    "registry_gb": (0.10, "ECR, a GB kept"),
    "s3_gb": (0.023, "S3, a GB kept"),
    "s3_write": (5e-6, "S3, a write or a list"),
    "s3_read": (0.4e-6, "S3, a read"),
    "sqs_call": (0.4e-6, "SQS, a call"),
    "table_write": (0.625e-6, "DynamoDB on demand, a write"),
    "express_start": (1e-6, "Step Functions, an express execution"),
    "express_gb_second": (0.00001667, "Step Functions, a GB-second of it"),
}
"""US dollars, and the unit."""

GIGABYTES = 1769 / 1024
MEASURED = {
    "photo": (0.049, "seconds for a photo of 12 megapixels (a small one takes 0.023)"),
    "start": (0.414, "seconds for the first answer of a container"),
    "logged": (1868, "bytes that the application logs for an answer, figures among them"),
    "answered": (858, "bytes of an answer"),
}
ASSUMED = {
    "started": (0.01, "of the requests meet a container that has to start"),
    "platform": (800, "bytes that Lambda logs for a call"),
    "batch_logged": (600, "bytes logged for a photo of a batch, or for the form of an upload"),
    "photo_gb": (0.003, "GB a photo; an upload has 0.010"),
    "kept": (1.0, "months that photos under incoming/ are kept (KeepDays 30)"),
    "fetched": (0.030, "seconds until a photo of S3 is there, above looking at it"),
    "metrics": (25, "metrics of our own: 4 for each of 3 routes, 6 by version, 2 classes, 4 problems, 1 start"),
    "alarm_metrics": (12, "metrics that the alarms look at (15 with Batch)"),
    "images_gb": (1.0, "GB of images in the registry"),
}
SECONDS_A_MONTH = 30 * 24 * 3600


def price(name: str) -> float:
    """Return the price of a unit in US dollars."""
    return PRICES[name][0]


def known(name: str) -> float:
    """Return a measured or assumed number."""
    return (MEASURED | ASSUMED)[name][0]


def compute(seconds: float, photos_a_call: int = 1) -> float:
    """Return the cost of compute for one photo, container starts included."""
    seconds += known("started") * known("start") / photos_a_call
    return price("lambda_request") / photos_a_call + seconds * GIGABYTES * price("lambda_gb_second")


def lines(size: float) -> float:
    """Return the cost of log lines of `size` bytes."""
    return size / 1e9 * price("log_gb")


def traces(photos: int) -> float:
    """Return the cost of traces: Lambda records the first request of each second, and 5 % of the others."""
    first = min(photos, SECONDS_A_MONTH)
    return (first + 0.05 * (photos - first)) * price("trace")


def monthly(photos: int) -> dict[str, float]:
    """Return the monthly cost of each part in US dollars."""
    photo, fetched = known("photo"), known("fetched")
    keeping = known("photo_gb") * known("kept") * price("s3_gb")
    batch_lines = lines(known("batch_logged"))
    return {
        "URL: compute and requests": photos * compute(photo),
        "URL: log lines": photos * lines(known("logged") + known("platform")),
        "URL: traces": traces(photos),
        "URL: answers sent": photos * known("answered") / 1e9 * price("out_gb"),
        "Uploads: on top of the URL": photos
        * (
            compute(fetched)
            + lines(known("platform") + known("batch_logged"))
            + price("s3_write")
            + price("s3_read")
            + 0.010 / 30 * price("s3_gb")
        ),
        "Batch, arriving: score": photos
        * (
            compute(photo + fetched, 10)
            + batch_lines
            + 1.2 * price("sqs_call")
            + 2 * price("table_write")
            + 2 * price("s3_read")
            + price("s3_write")
        ),
        "Batch, state machine: score": photos
        * (
            compute(photo + fetched, 100)
            + batch_lines / 10
            + price("s3_read")
            + price("s3_write") / 1000
            + price("express_start") / 100
            + (photo + fetched) * 0.0625 * price("express_gb_second")
        ),
        "Batch: put photos there and keep them": photos * (price("s3_write") + keeping),
        "Watching: metrics, alarms, dashboard": known("metrics") * price("metric")
        + known("alarm_metrics") * price("alarm_metric")
        + price("dashboard"),
        "Registry": known("images_gb") * price("registry_gb"),
    }


def dollars(amount: float) -> str:
    """Format an amount: cents below 10 dollars, whole dollars above."""
    return f"{amount:,.2f}" if amount < 10 else f"{amount:,.0f}"


def tables() -> str:
    """Return the tables as Markdown."""
    columns = [monthly(photos) for photos in PHOTOS]
    rows = [
        "| US dollars a month | " + " | ".join(f"{photos:,} photos" for photos in PHOTOS) + " |",
        "|---|---|---|---|",
    ]
    rows += [f"| {part} | " + " | ".join(dollars(column[part]) for column in columns) + " |" for part in columns[0]]
    rows += ["", "| assumed | |", "|---|---|"]
    rows += [f"| {value:g} | {of} |" for value, of in ASSUMED.values()]
    rows += ["", "| measured at 1 769 MB (times: performance.md) | |", "|---|---|"]
    rows += [f"| {value:g} | {of} |" for value, of in MEASURED.values()]
    rows += ["", "| US dollars | of |", "|---|---|"]
    rows += [f"| {value:.10f}".rstrip("0") + f" | {of} |" for value, of in PRICES.values()]
    return "\n".join(rows)


def page(text: str) -> str:
    """Return the page with fresh tables."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
