//! A mistake on the command line, said in one line.

use clap::error::ErrorKind;

use super::failure::Failure;

/// clap's report without its paragraphs: what was wrong and where, then what to do.
///
/// ```text
///   error: unexpected argument '--adress' found
///                                                            byway: unexpected argument '--adress' found;
///     tip: a similar argument exists: '--address'      →       a similar argument exists: '--address'
///
///   Usage: …
/// ```
pub(crate) fn failure(error: &clap::Error) -> Failure {
    let report = error.render().to_string();
    let report = report.strip_prefix("error: ").unwrap_or(&report);
    let (mut wrong, mut tips) = (Vec::new(), Vec::new());
    for line in report.lines().map(str::trim) {
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        match line.strip_prefix("tip: ") {
            Some(tip) => tips.push(tip),
            None => wrong.extend(line.split_whitespace()),
        }
    }
    // Other mistakes' reports name what may be given instead.
    if tips.is_empty() && matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand) {
        tips.push("--help lists what there is");
    }
    let mut message = wrong.join(" ");
    for tip in tips {
        message.push_str("; ");
        message.push_str(tip);
    }
    Failure { code: Failure::USAGE, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn said(arguments: &[&str]) -> String {
        let all = ["byway"].iter().chain(arguments);
        let failure = failure(&crate::cli::Cli::try_parse_from(all).expect_err("a mistake"));
        assert_eq!(failure.code, 2);
        assert!(!failure.message.contains('\n') && !failure.message.contains("  "), "{}", failure.message);
        failure.message
    }

    #[test]
    fn mistakes_are_said_in_a_line_with_what_to_do() {
        let serve = ["serve", "--interface", "eth0", "--address", "192.0.2.7/24"];
        let serving = |more: &[&str]| said(&[&serve, more].concat());
        for (message, expected) in [
            (
                said(&["serve", "--adress", "192.0.2.7/24"]),
                "unexpected argument '--adress' found; a similar argument exists: '--address'",
            ),
            (
                said(&["serve"]),
                "the following required arguments were not provided: --interface <IF> --address <CIDR>",
            ),
            (
                serving(&["--attach", "natve"]),
                "invalid value 'natve' for '--attach <ATTACH>' [possible values: auto, native, generic]; \
                 a similar value exists: 'native'",
            ),
            (
                serving(&["--drain", "5"]),
                "invalid value '5' for '--drain <TIME>': a unit is missing: give, say, 500ms, 5s or 1m",
            ),
            (
                serving(&["--port", "65536"]),
                "invalid value '65536' for '--port <PORT>': 65536 is not in 1..=65535",
            ),
            (
                said(&["serve", "--interface", "", "--address", "192.0.2.7/24"]),
                "invalid value '' for '--interface <IF>': the name is empty: give one that `ip link` lists",
            ),
            (said(&["serv"]), "unrecognized subcommand 'serv'; a similar subcommand exists: 'serve'"),
            (said(&["frobnicate"]), "unrecognized subcommand 'frobnicate'; --help lists what there is"),
            (said(&["stats", "eth0"]), "unexpected argument 'eth0' found; --help lists what there is"),
        ] {
            assert_eq!(message, expected);
        }
        let bare = said(&[]);
        assert!(bare.contains("requires a subcommand") && bare.contains("serve, load, demo"), "{bare}");
    }

    #[test]
    fn line_ends_of_the_user_are_no_line_ends_of_ours() {
        assert!(said(&["serve", "--address", "192.0.2.7\n\r\n/33"]).contains("'192.0.2.7 /33'"));
    }
}
