"""Reads the files of a run with tools that are not ours: HdrHistogram's Python package, jsonschema, an XML parser.

usage: foreign.py SCHEMA DIR...    ends with 1 and says what is wrong at the first disagreement
"""

import json
import math
import pathlib
import re
import sys
from xml.etree import ElementTree

import jsonschema
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

LONGEST_NS = 3_600_000_000_000
DIGITS = 3
TAGS = {"latency": None, "from_send": "real-send", "send_lag": "send-lag", "own_lag": "own-lag", "connect": "connect"}
NS_PER_US = 1000


def check(holds, what):
    if not holds:
        sys.exit(f"foreign: {what}")


def read_log(path):
    """The sums of all intervals, by tag."""
    sums = {}
    reader = HistogramLogReader(str(path), HdrHistogram(1, LONGEST_NS, DIGITS))
    while (interval := reader.get_next_interval_histogram()) is not None:
        total = sums.setdefault(interval.get_tag(), HdrHistogram(1, LONGEST_NS, DIGITS))
        total.add(interval)
    return sums


def at(histogram, percentile):
    """The first value whose rank reaches the percentile; the package rounds ranks, so it is given a whole one."""
    n = histogram.get_total_count()
    rank = max(math.ceil(percentile * n / 100 - 1e-9), 1)
    return histogram.get_value_at_percentile(100 * rank / n)


def same_percentiles(histogram, figures, what):
    check(histogram.get_total_count() == figures["count"], f"{what}: {histogram.get_total_count()} values")
    for name, value in figures.items():
        if name.startswith("p"):
            percentile = float(name[1:])
            found = at(histogram, percentile)
            check(found == value, f"{what}: {name} is {found}, loadgen says {value}")
    check(histogram.get_max_value() == figures["max"], f"{what}: max {histogram.get_max_value()}, not {figures['max']}")
    # Not get_min_value: it is 0 once an empty interval was added.
    least = histogram.get_lowest_equivalent_value(at(histogram, 0))
    check(least == figures["min"], f"{what}: min {least}, not {figures['min']}")


def stored(buckets):
    histogram = HdrHistogram(1, LONGEST_NS, DIGITS)
    for value, count in buckets:
        histogram.record_value(value, count)
    return histogram


def rows(table):
    """Value, percentile and count of a percentile distribution."""
    lines = (line.split() for line in table.splitlines() if not line.startswith("#"))
    found = [[float(word) for word in words[:3]] for words in lines if len(words) >= 3 and words[0] != "Value"]
    return found


def check_table(path, histogram):
    """Each row names a value of the histogram, its percentile and how many values do not exceed it.

    Asked for by percentile: the package's own table has other rows, because its ticks shrink with every step.
    """
    text = path.read_text()
    table = rows(text)
    check(len(table) > 10, f"{path}: {len(table)} rows")
    totals, total = {}, 0
    for recorded in histogram.get_recorded_iterator():
        total += recorded.count_at_value_iterated_to
        totals[recorded.value_iterated_to] = total
    for micros, quantile, count in table:
        found = at(histogram, quantile * 100)
        check(abs(found / NS_PER_US - micros) < 0.001, f"{path}: {micros} us at {quantile}, the package says {found} ns")
        check(totals[found] == count, f"{path}: {count} values up to {quantile}, the package says {totals[found]}")
    mean = float(re.search(r"Mean *= *([0-9.]+)", text)[1])
    check(abs(mean / (histogram.get_mean_value() / NS_PER_US) - 1) < 1e-4, f"{path}: mean {mean} us")


def main(schema, folders):
    schema = json.loads(pathlib.Path(schema).read_text())
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    for folder in map(pathlib.Path, folders):
        record = json.loads((folder / "run.json").read_text())
        for error in validator(schema).iter_errors(record):
            sys.exit(f"foreign: {folder}/run.json: {list(error.absolute_path)}: {error.message}")
        sums = read_log(folder / "run.hlog")
        same_percentiles(sums[None], record["summary"]["intended"], "run.hlog")
        samples = record["outcome"]["measured"]["samples"]
        kept = {"latency": samples["latency"], "connect": samples["connect"], **(samples["open"] or {})}
        for name, buckets in kept.items():
            if buckets is not None:
                logged = sums[TAGS[name]]
                check(logged.get_total_count() == sum(n for _, n in buckets), f"{name}: another count in the log")
                if buckets:
                    for percentile in (50, 90, 99, 99.9, 100):
                        check(at(logged, percentile) == at(stored(buckets), percentile), f"{name}: p{percentile}")
        if samples["open"]:
            same_percentiles(sums["real-send"], record["summary"]["real"], "real-send")
        check_table(folder / "run.hgrm", sums[None])
        for picture in ("latency.svg", "timeline.svg"):
            root = ElementTree.parse(folder / picture).getroot()
            check(root.tag.endswith("}svg") and len(root) > 20, f"{picture}: {root.tag} of {len(root)} elements")
        print(f"{folder.name}: {record['summary']['intended']['count']} requests agree")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
