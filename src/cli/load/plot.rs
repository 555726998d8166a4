//! Latencies by percentile as a picture: towards 100 % each step is a tenth of what is left.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 930.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 450.0;
/// Steps in each half of what is left: more than the picture shows pixels for.
const STEPS: u32 = 20;

pub(super) fn draw(title: &str, latency: &Histogram<u64>) -> String {
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="14" fill="#222">
<style>polyline {{ fill: none }} .latency {{ stroke: #1756a9; stroke-width: 1.8 }} .grid {{ stroke: #00000022 }} .axis {{ stroke: #444 }}</style>
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{LEFT}" y="34" font-size="18">{}</text>
"##,
        title.replace('&', "&amp;").replace('<', "&lt;")
    );
    // One decade more than there are requests for shows nothing.
    let decades = (latency.len().max(10) as f64).log10().ceil().clamp(2.0, 9.0);
    let x = |quantile: f64| {
        let nines = -(1.0 - quantile).max(10f64.powf(-decades)).log10();
        LEFT + (RIGHT - LEFT) * nines / decades
    };
    let most = (latency.max() as f64 / 1e6).max(0.001);
    let y = |millis: f64| BOTTOM - (BOTTOM - TOP) * millis / (most * 1.05);

    let step = round_step(most / 6.0);
    let mut value = 0.0;
    while value <= most * 1.05 {
        let digits = (-step.log10().floor()).max(0.0) as usize;
        let _ = writeln!(
            svg,
            r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{0:.2}" y2="{0:.2}"/><text x="{1}" y="{2:.2}" text-anchor="end">{value:.digits$}</text>"#,
            y(value),
            LEFT - 8.0,
            y(value) + 5.0
        );
        value += step;
    }
    for decade in 0..=decades as i32 {
        let quantile = 1.0 - 10f64.powi(-decade);
        let name = if decade == 0 { "0 %".to_owned() } else { format!("{} %", percent(decade)) };
        let _ = writeln!(
            svg,
            r#"<line class="grid" x1="{0:.2}" x2="{0:.2}" y1="{TOP}" y2="{BOTTOM}"/><text x="{0:.2}" y="{1}" text-anchor="middle">{name}</text>"#,
            x(quantile),
            BOTTOM + 20.0
        );
    }
    let mut points = String::new();
    for step in latency.iter_quantiles(STEPS) {
        let millis = step.value_iterated_to() as f64 / 1e6;
        let _ = write!(points, "{:.1},{:.1} ", x(step.quantile_iterated_to()), y(millis.min(most)));
    }
    let middle = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
    let _ = write!(
        svg,
        r#"<polyline class="axis" points="{LEFT},{TOP} {LEFT},{BOTTOM} {RIGHT},{BOTTOM}"/>
<polyline class="latency" points="{}"/>
<text x="{}" y="{}" text-anchor="middle">share of requests answered within</text>
<text transform="translate(24 {}) rotate(-90)" text-anchor="middle">latency, ms</text>
</svg>
"#,
        points.trim_end(),
        middle.0,
        BOTTOM + 46.0,
        middle.1
    );
    svg
}

/// 90, 99, 99.9, 99.99 …
fn percent(nines: i32) -> String {
    match nines {
        1 => "90".to_owned(),
        2 => "99".to_owned(),
        more => format!("99.{}", "9".repeat(more as usize - 2)),
    }
}

/// 1, 2 or 5 times a power of ten, and not less than `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|&step| step >= least).unwrap_or(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(svg: &str) -> Vec<(f64, f64)> {
        let line = svg.split(r#"class="latency" points=""#).nth(1).expect("a line");
        let line = line.split('"').next().expect("an end");
        let point = |pair: &str| {
            let (x, y) = pair.split_once(',').expect("a pair");
            (x.parse().expect("x"), y.parse().expect("y"))
        };
        line.split_whitespace().map(point).collect()
    }

    #[test]
    fn the_line_rises_from_the_left_to_the_maximum() {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
        for micros in 1..=100_000u64 {
            latency.record(micros * 100).expect("in bounds");
        }
        let svg = draw("a & b < c", &latency);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("a &amp; b &lt; c"));
        for label in ["90 %", "99 %", "99.9 %", "99.999 %"] {
            assert!(svg.contains(label), "{label}");
        }
        let points = points(&svg);
        assert!(points.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 >= pair[1].1));
        assert!(points.iter().all(|&(x, y)| (LEFT..=RIGHT).contains(&x) && (TOP..=BOTTOM).contains(&y)));
        assert_eq!(points.last().expect("points").0, RIGHT);
    }

    #[test]
    fn nothing_measured_is_an_empty_picture() {
        let latency = Histogram::new_with_bounds(1, 1000, 3).expect("bounds");
        assert!(points(&draw("nothing", &latency)).len() <= 1);
    }
}
