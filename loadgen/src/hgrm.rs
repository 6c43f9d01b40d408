//! `run.hgrm`: the percentile distribution that the HdrHistogram plotter reads.
//!
//! A table of `Value Percentile TotalCount 1/(1-Percentile)`, then the footer, as HdrHistogram's
//! `outputPercentileDistribution` prints them. The percentile advances in [`TICKS_PER_HALF`] equal
//! steps for each halving of what is left to 100 %: 0, 10 .. 50, 55 .. 75, 77.5 .. 87.5 and so on.
//! Values are in microseconds, because the format has three decimals and requests over loopback
//! take a few of them; readers skip the `#` line that says so.

use std::io::{self, Write};

use hdrhistogram::Histogram;

/// Steps for each halving of the distance to 100 %; what HdrHistogram's own tools use.
const TICKS_PER_HALF: u32 = 5;
/// Nanoseconds in the unit of the file.
const NANOS_PER_UNIT: f64 = 1e3;

/// Writes the distribution of `histogram`, whose values are nanoseconds.
pub(crate) fn write(out: &mut impl Write, histogram: &Histogram<u64>) -> io::Result<()> {
    writeln!(
        out,
        "# latency from the intended send to the whole echo received; values in microseconds"
    )?;
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    for row in rows(histogram) {
        let value = row.nanos as f64 / NANOS_PER_UNIT;
        write!(
            out,
            "{value:>12.3} {:.12} {:>10}",
            row.percentile / 100.0,
            row.total
        )?;
        if row.percentile < 100.0 {
            writeln!(out, " {:>14.2}", 100.0 / (100.0 - row.percentile))?;
        } else {
            // 1/(1-1) has no value; HdrHistogram leaves the column out, and plotters skip the line.
            writeln!(out)?;
        }
    }
    let unit = |nanos: f64| nanos / NANOS_PER_UNIT;
    writeln!(
        out,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]",
        unit(histogram.mean()),
        unit(histogram.stdev())
    )?;
    writeln!(
        out,
        "#[Max     = {:>12.3}, Total count    = {:>12}]",
        unit(histogram.max() as f64),
        histogram.len()
    )?;
    let sub_buckets = sub_buckets(histogram.sigfig());
    writeln!(
        out,
        "#[Buckets = {:>12}, SubBuckets     = {sub_buckets:>12}]",
        histogram.buckets()
    )
}

/// One line of the table.
struct Row {
    nanos: u64,
    percentile: f64,
    /// Values up to and with [`Row::nanos`].
    total: u64,
}

/// HdrHistogram's percentile iteration: for each recorded value, in order, a row for every tick it
/// reaches.
///
/// The value that completes the count gets one row at the tick it reaches first, then the row of
/// 100 %. Not taken from hdrhistogram's `iter_quantiles`: it adds ticks up as quantiles, where the
/// sum of 0.775 and 0.025 is a little more than 0.8, so rows move to the next value. As percentages
/// the first ticks are exact, and so are the rows.
fn rows(histogram: &Histogram<u64>) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut total = 0;
    let mut tick = 0.0;
    for recorded in histogram.iter_recorded() {
        let nanos = recorded.value_iterated_to();
        total += recorded.count_at_value();
        let reached = 100.0 * total as f64 / histogram.len() as f64;
        if total == histogram.len() {
            rows.push(Row {
                nanos,
                percentile: tick,
                total,
            });
            rows.push(Row {
                nanos,
                percentile: 100.0,
                total,
            });
            break;
        }
        while tick <= reached {
            rows.push(Row {
                nanos,
                percentile: tick,
                total,
            });
            tick += tick_size(tick);
        }
    }
    rows
}

/// The size of the tick after `tick`: a fifth of what is left to 100 % at the last halving, halved.
fn tick_size(tick: f64) -> f64 {
    let n_halvings = (100.0 / (100.0 - tick)).log2().floor();
    100.0 / (f64::from(TICKS_PER_HALF) * (n_halvings + 1.0).exp2())
}

/// Values told apart at the finest step: the power of two that holds twice 10 to the power of the
/// digits.
fn sub_buckets(digits: u8) -> u64 {
    (2 * 10_u64.pow(u32::from(digits))).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::{tick_size, write};
    use crate::interval::new_histogram;

    fn written(histogram: &Histogram<u64>) -> String {
        let mut out = Vec::new();
        write(&mut out, histogram).expect("a Vec takes everything");
        String::from_utf8(out).expect("the format is ASCII")
    }

    /// Ten values of 1 to 10 us: below 2048 ns each value is a bucket of its own, up to 4096 two
    /// share one, up to 8192 four, up to 16384 eight; a bucket is named by its highest value.
    /// Computed by hand.
    #[test]
    fn ten_values_give_the_table_computed_by_hand() {
        let mut histogram = new_histogram();
        for micros in 1..=10 {
            histogram.record(micros * 1000).expect("within the bounds");
        }
        let text = written(&histogram);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .skip(2)
            .map(|line| line.split_whitespace().collect())
            .collect();
        let by_hand = [
            ["1.000", "0.000000000000", "1", "1.00"],
            ["1.000", "0.100000000000", "1", "1.11"],
            ["2.000", "0.200000000000", "2", "1.25"],
            ["3.001", "0.300000000000", "3", "1.43"],
            ["4.001", "0.400000000000", "4", "1.67"],
            ["5.003", "0.500000000000", "5", "2.00"],
            ["6.003", "0.550000000000", "6", "2.22"],
            ["6.003", "0.600000000000", "6", "2.50"],
            ["7.003", "0.650000000000", "7", "2.86"],
            ["7.003", "0.700000000000", "7", "3.33"],
            ["8.003", "0.750000000000", "8", "4.00"],
            ["8.003", "0.775000000000", "8", "4.44"],
            ["8.003", "0.800000000000", "8", "5.00"],
            ["9.007", "0.825000000000", "9", "5.71"],
            ["9.007", "0.850000000000", "9", "6.67"],
            ["9.007", "0.875000000000", "9", "8.00"],
            ["9.007", "0.887500000000", "9", "8.89"],
            ["9.007", "0.900000000000", "9", "10.00"],
            ["10.007", "0.912500000000", "10", "11.43"],
        ];
        assert_eq!(rows.len(), by_hand.len() + 1, "{text}");
        for (row, expected) in rows.iter().zip(by_hand) {
            assert_eq!(row.as_slice(), expected);
        }
        assert_eq!(
            rows[by_hand.len()].as_slice(),
            ["10.007", "1.000000000000", "10"]
        );
    }

    /// Five ticks from 0 to 50, five to 75, five to 87.5: each half is stepped through as finely as
    /// the one before.
    #[test]
    fn ticks_halve_when_half_of_the_rest_is_done() {
        for (tick, size) in [
            (0.0, 10.0),
            (40.0, 10.0),
            (50.0, 5.0),
            (70.0, 5.0),
            (75.0, 2.5),
            (87.5, 1.25),
            (93.75, 0.625),
        ] {
            assert_eq!(tick_size(tick), size, "after {tick}");
        }
    }

    /// Mean of 1, 1.5 and 2 us is 1.5; the deviations are 0.5, 0 and 0.5: the root of 0.5 / 3 is
    /// 0.408.
    #[test]
    fn footer_holds_mean_deviation_max_and_count() {
        let mut histogram = new_histogram();
        for nanos in [1000, 1500, 2000] {
            histogram.record(nanos).expect("within the bounds");
        }
        let text = written(&histogram);
        let footer: Vec<&str> = text.lines().filter(|line| line.starts_with("#[")).collect();
        assert_eq!(
            footer,
            [
                "#[Mean    =        1.500, StdDeviation   =        0.408]",
                "#[Max     =        2.000, Total count    =            3]",
                "#[Buckets =           32, SubBuckets     =         2048]",
            ]
        );
    }

    #[test]
    fn empty_histogram_has_a_header_and_a_footer_only() {
        let text = written(&new_histogram());
        assert!(
            text.lines()
                .filter(|l| !l.is_empty())
                .all(|l| l.starts_with('#') || l.contains("Value")),
            "{text}"
        );
        assert!(text.contains("Total count    =            0"), "{text}");
    }
}
