//! `--config FILE`: the options of `byway serve` in a TOML file, by their long names.
//!
//! ```toml
//! interface = "eth1"
//! address = ["192.0.2.7/24", "2001:db8::7/64"]
//! port = 8080
//! accept-partial-checksums = true
//! ```
//!
//! The file becomes arguments in front of the command line's, so that there is one parser, one set of checks and
//! one wording; what is given twice counts as the command line says it, addresses and gateways add up.

use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory as _, Parser as _};
use toml::{Table, Value};

use super::failure::Failure;
use super::{Cli, usage};

/// What a file can't say.
const NOT_IN_FILES: [&str; 4] = ["check", "config", "help", "print-config"];

/// [`splice`] for `byway serve`, which alone of the verbs has such a file.
///
/// # Errors
/// As there.
pub(crate) fn splice_for_serve(arguments: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    if arguments.get(1).is_none_or(|verb| verb != "serve") {
        return Ok(arguments);
    }
    splice(arguments, 2, |alone| Cli::try_parse_from(alone).map(drop))
}

/// The command line with the file's options in front of its own, which begin at `verb`, if a file is named. `parse`
/// judges what the file says.
///
/// # Errors
/// The file can't be read, isn't TOML, or says something that isn't an option (78).
pub(crate) fn splice(
    arguments: Vec<OsString>,
    verb: usize,
    parse: impl FnOnce(&[OsString]) -> Result<(), clap::Error>,
) -> Result<Vec<OsString>, Failure> {
    let Some(file) = named_file(&arguments[verb..]) else { return Ok(arguments) };
    let path = Path::new(&file);
    let wrong = |what: String| Failure::configuration(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
        wrong(format!("line {line}: {}", error.message()))
    })?;
    let mut from_file = Vec::new();
    for (name, value) in &table {
        if NOT_IN_FILES.contains(&name.as_str()) {
            return Err(wrong(format!("'{name}' belongs on the command line")));
        }
        options(name, value, &mut from_file).map_err(wrong)?;
    }
    // What is wrong with the file by itself is the file's fault; that something is missing may not be.
    let alone: Vec<_> = arguments[..verb].iter().chain(&from_file).cloned().collect();
    if let Err(error) = parse(&alone)
        && error.kind() != ErrorKind::MissingRequiredArgument
    {
        return Err(wrong(usage::failure(&error).message));
    }
    let (verb, own) = arguments.split_at(verb);
    Ok(verb.iter().chain(&from_file).chain(own).cloned().collect())
}

/// `--print-config`: what `byway serve` would run with, as such a file, every option with its help. `arguments` have
/// been parsed before.
pub(crate) fn print(arguments: &[OsString]) -> String {
    let command = Cli::command();
    let matches = command.clone().get_matches_from(arguments);
    let (verb, matches) = matches.subcommand().expect("it was parsed");
    let command = command.find_subcommand(verb).expect("it was parsed");
    let mut text = format!(
        "# Options of `byway {verb}`, for `byway {verb} --config FILE`; what the command line says goes before it.\n"
    );
    for arg in command.get_arguments() {
        let Some(name) = arg.get_long().filter(|name| !NOT_IN_FILES.contains(name)) else { continue };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        text.push_str(&format!("\n# {help}\n{}\n", entry(name, arg, matches)));
    }
    text
}

/// The line of one option; a comment if it isn't set.
fn entry(name: &str, arg: &clap::Arg, matches: &ArgMatches) -> String {
    let several = matches!(arg.get_action(), clap::ArgAction::Append);
    let raw = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
    let values: Vec<Value> = raw.map(|value| value_of(&value.to_string_lossy())).collect();
    match values.as_slice() {
        [] if several => format!("{name} = []"),
        [] => format!("# {name} ="),
        [value] if !several => format!("{name} = {value}"),
        values => format!("{name} = {}", Value::Array(values.to_vec())),
    }
}

fn value_of(text: &str) -> Value {
    match (text.parse::<i64>(), text.parse::<bool>()) {
        // A file may be called 007.
        (Ok(number), _) if number.to_string() == text => Value::Integer(number),
        (_, Ok(flag)) => Value::Boolean(flag),
        _ => Value::String(text.to_owned()),
    }
}

/// FILE of `--config FILE` or `--config=FILE`; clap judges the rest.
fn named_file(arguments: &[OsString]) -> Option<OsString> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--config" {
            return rest.next().cloned();
        }
        if let Some(file) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(file.into());
        }
    }
    None
}

/// One entry as arguments.
fn options(name: &str, value: &Value, out: &mut Vec<OsString>) -> Result<(), String> {
    let flag = format!("--{name}");
    let text = match value {
        Value::Boolean(false) => return Ok(()),
        Value::Boolean(true) => {
            out.push(flag.into());
            return Ok(());
        }
        Value::Array(values) => return values.iter().try_for_each(|value| options(name, value, out)),
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => {
            return Err(format!(
                "'{name}' is a {}: give a string, a number, true, false or a list",
                value.type_str()
            ));
        }
    };
    out.push(format!("{flag}={text}").into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Verb;

    /// Parses with a file of this text.
    fn with(text: &str, more: &[&str]) -> Result<super::super::options::Serve, Failure> {
        let path = std::env::temp_dir().join(format!("byway-config-{}-{}", std::process::id(), text.len()));
        std::fs::write(&path, text).expect("scratch");
        let own = ["byway", "serve", "--config"].map(OsString::from);
        let all = own.into_iter().chain([path.clone().into()]).chain(more.iter().map(OsString::from));
        let spliced = splice_for_serve(all.collect());
        let _ = std::fs::remove_file(path);
        match Cli::try_parse_from(spliced?).map_err(|error| usage::failure(&error))?.verb {
            Verb::Serve(options) => Ok(options),
            _ => unreachable!("serve was asked for"),
        }
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let text = "interface = \"eth1\"\naddress = [\"192.0.2.7/24\", \"2001:db8::7/64\"]\nport = 8080\n\
                    accept-partial-checksums = true\nqueues = \"0,1\"\n";
        let options = with(text, &["--port", "81", "--address", "192.0.2.8/24"]).expect("parses");
        assert_eq!(
            (options.network.nic.interface(), options.port, options.network.nic.addresses.len()),
            ("eth1", 81, 3)
        );
        assert!(options.network.nic.accept_partial_checksums);
    }

    fn printed(more: &[&str]) -> String {
        let all: Vec<OsString> = ["byway", "serve"].iter().chain(more).map(OsString::from).collect();
        print(&all)
    }

    /// What is printed means the same when it is read, and then looks the same.
    #[test]
    fn what_is_printed_can_be_read() {
        let own = ["--interface", "eth1", "--address", "192.0.2.7/24", "--address", "2001:db8::7/64"];
        let more = ["--queues", "0,1", "--drain", "2s", "--accept-partial-checksums", "--tls-port", "443"];
        let files = ["--tls-cert", "a \"quoted\" file", "--tls-key", "007"];
        let all = [&own[..], &more, &files].concat();
        let text = printed(&all);
        let options = with(&text, &[]).expect("parses");
        assert_eq!(options.network.nic.addresses.len(), 2);
        assert!(options.network.nic.accept_partial_checksums);
        assert_eq!(options.tls_cert.as_deref(), Some(Path::new("a \"quoted\" file")));
        assert_eq!(options.tls_key.as_deref(), Some(Path::new("007")));

        let path = std::env::temp_dir().join(format!("byway-printed-{}", std::process::id()));
        std::fs::write(&path, &text).expect("scratch");
        let again = ["byway", "serve", "--config", path.to_str().expect("UTF-8")].map(OsString::from);
        let again = splice_for_serve(again.to_vec()).expect("reads");
        let _ = std::fs::remove_file(path);
        assert_eq!(print(&again), text);
    }

    /// The file that is installed is what the command prints, so that it knows every option.
    #[test]
    fn the_example_knows_every_option() {
        let addresses = ["--address", "192.0.2.7/24", "--address", "2001:db8::7/64"];
        let own = ["--interface", "eth1", "--gateway", "192.0.2.1"];
        let text = printed(&[&own[..], &addresses].concat());
        let example = include_str!("../../deploy/byway.toml");
        assert_eq!(
            example, text,
            "renew it: byway serve --interface eth1 --gateway 192.0.2.1 --address 192.0.2.7/24 \
             --address 2001:db8::7/64 --print-config >deploy/byway.toml"
        );
    }

    #[test]
    fn mistakes_in_the_file_name_it() {
        for (text, expected) in [
            ("interfac = \"eth1\"", "--interface"),
            ("port = \"http\"", "http"),
            ("port = ", "line 1"),
            ("port = 1.5", "float"),
            ("config = \"other\"", "command line"),
        ] {
            let failure = with(text, &["--interface", "eth0"]).expect_err(text);
            assert_eq!(failure.code, Failure::CONFIGURATION, "{text}: {}", failure.message);
            assert!(
                failure.message.contains("byway-config-") && failure.message.contains(expected),
                "{}",
                failure.message
            );
        }
        let missing =
            splice_for_serve(["byway", "serve", "--config=/nonexistent"].map(OsString::from).to_vec());
        assert!(missing.expect_err("no file").message.contains("/nonexistent"));
        // What is missing from both is the command line's to say.
        assert_eq!(with("port = 80", &[]).expect_err("no interface").code, 2);
    }
}
