//! Percentiles as HdrHistogram's `outputPercentileDistribution` writes them, in milliseconds: what its plotters read.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// Steps towards 100 %: so many in each half of what is left, as wrk2 has it.
const STEPS: u32 = 5;
/// What three significant digits take: 2 × 10³, up to a power of two.
const SUB_BUCKETS: u32 = 2048;

pub(super) fn log(latency: &Histogram<u64>) -> String {
    let mut text =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let ms = |nanos: f64| nanos / 1e6;
    let mut count = 0;
    for step in latency.iter_quantiles(STEPS) {
        count += step.count_since_last_iteration();
        let (value, quantile) = (ms(step.value_iterated_to() as f64), step.quantile_iterated_to());
        let _ = write!(text, "{value:12.3} {quantile:2.12} {count:10}");
        if quantile < 1.0 {
            let _ = write!(text, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let (mean, deviation) = (ms(latency.mean()), ms(latency.stdev()));
    let (max, total) = (ms(latency.max() as f64), latency.len());
    let buckets = latency.buckets();
    let _ = write!(
        text,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]\n\
         #[Max     = {max:12.3}, Total count    = {total:12}]\n\
         #[Buckets = {buckets:12}, SubBuckets     = {SUB_BUCKETS:12}]\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_as_hdrhistogram_has_it() {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
        for micros in 1..=1000u64 {
            latency.record(micros * 1000).expect("in bounds");
        }
        let log = log(&latency);
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        assert_eq!(lines[2], "       0.001 0.000000000000          1           1.00");
        let rows: Vec<Vec<f64>> = lines[2..lines.len() - 3]
            .iter()
            .map(|line| line.split_whitespace().map(|word| word.parse().expect("a number")).collect())
            .collect();
        assert!(rows.windows(2).all(|pair| pair[0][..3].iter().zip(&pair[1]).all(|(a, b)| a <= b)));
        let last = rows.last().expect("rows");
        assert_eq!(last[1..], [1.0, 1000.0], "the last row has no fourth column");
        assert!(lines[lines.len() - 2].contains("Total count    =         1000]"), "{log}");
    }

    #[test]
    fn nothing_measured_is_no_row() {
        let latency = Histogram::new_with_bounds(1, 1000, 3).expect("bounds");
        assert!(log(&latency).contains("Total count    =            0]"));
    }
}
