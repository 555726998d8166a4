//! What the RFCs ask, where byway obeys, and the test that shows it: `make compliance` prints the table.
//!
//! Every `compliance/rfc*.toml` is a test by its name. It fails when a place in the code or a test that it names isn't
//! there (any more), when a test is ignored, and when a MUST or MUST NOT has neither a test nor a reason.
//!
//! ```toml
//! title = "Transmission Control Protocol (TCP)"
//! numbered = { MUST = 69, SHLD = 31 }       # where the RFC numbers its rules: none is left out
//!
//! [[rule]]
//! id = "MUST-3"
//! section = "3.1"
//! level = "MUST"                            # MUST, MUST NOT, SHOULD, SHOULD NOT, MAY
//! says = "A receiver checks the checksum."  # in our words
//! code = ["src/wire/tcp.rs: MUST-3"]        # a file of this crate, and what to look for in it: the first such line
//! tests = ["scripts/receive/bad_checksum.pkt", "tests/segments/icmp.rs::l8_a_guess_changes_nothing"]
//! deviation = "…"                           # why byway knowingly does otherwise
//! not_ours = "…"                            # why there is nothing here that could obey
//! ```
//!
//! What has a deviation may have tests, too: of the part that is obeyed, or of what is done instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize;

/// Set to anything, this prints the table.
const PRINT: &str = "BYWAY_COMPLIANCE";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rfc {
    title: String,
    #[serde(default)]
    numbered: BTreeMap<String, u32>,
    rule: Vec<Rule>,
    #[serde(skip)]
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    id: String,
    section: String,
    level: Level,
    says: String,
    #[serde(default)]
    code: Vec<String>,
    #[serde(default)]
    tests: Vec<String>,
    deviation: Option<String>,
    not_ours: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
enum Level {
    #[serde(rename = "MUST")]
    Must,
    #[serde(rename = "MUST NOT")]
    MustNot,
    #[serde(rename = "SHOULD")]
    Should,
    #[serde(rename = "SHOULD NOT")]
    ShouldNot,
    #[serde(rename = "MAY")]
    May,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::MustNot => "MUST NOT",
            Self::Should => "SHOULD",
            Self::ShouldNot => "SHOULD NOT",
            Self::May => "MAY",
        }
    }

    fn is_must(self) -> bool {
        matches!(self, Self::Must | Self::MustNot)
    }
}

/// How byway stands to a rule, in the order of the counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Tested,
    Deviation,
    NotOurs,
    /// A MAY that byway does, without a test, or doesn't do.
    Free,
    Untested,
}

impl Standing {
    const ALL: [Self; 5] = [Self::Tested, Self::Deviation, Self::NotOurs, Self::Free, Self::Untested];

    fn name(self) -> &'static str {
        match self {
            Self::Tested => "tested",
            Self::Deviation => "deviation",
            Self::NotOurs => "not ours",
            Self::Free => "free",
            Self::Untested => "UNTESTED",
        }
    }
}

impl Rule {
    fn standing(&self) -> Standing {
        if self.not_ours.is_some() {
            Standing::NotOurs
        } else if self.deviation.is_some() {
            Standing::Deviation
        } else if !self.tests.is_empty() {
            Standing::Tested
        } else if self.level == Level::May {
            Standing::Free
        } else {
            Standing::Untested
        }
    }
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rfcs = read(root);
    if std::env::var_os(PRINT).is_some() {
        print!("{}", table(&rfcs, root));
    }
    let mut trials = vec![Trial::test("mistakes_are_noticed", move || mistakes_are_noticed(root))];
    let lists = rfcs.into_iter();
    trials.extend(
        lists.map(|rfc| Trial::test(rfc.name.clone(), move || check(&rfc, root).map_err(Failed::from))),
    );
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// All lists, by name.
fn read(root: &Path) -> Vec<Rfc> {
    let entries = std::fs::read_dir(root.join("compliance")).expect("the lists' folder");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a folder's entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let one = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("a list");
        let mut rfc: Rfc =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        rfc.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        rfc
    };
    paths.iter().map(one).collect()
}

// --- checks -----------------------------------------------------------------------------------------

fn check(rfc: &Rfc, root: &Path) -> Result<(), String> {
    let mut wrong = String::new();
    let mut ids = BTreeSet::new();
    for rule in &rfc.rule {
        if !ids.insert(rule.id.as_str()) {
            let _ = writeln!(wrong, "{}: twice in the list", rule.id);
        }
        for complaint in complaints(rule, root) {
            let _ = writeln!(wrong, "{}: {complaint}", rule.id);
        }
    }
    for (series, &last) in &rfc.numbered {
        for id in (1..=last).map(|number| format!("{series}-{number}")) {
            if !ids.contains(id.as_str()) {
                let _ = writeln!(wrong, "{id}: not in the list");
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn complaints(rule: &Rule, root: &Path) -> Vec<String> {
    let mut complaints = Vec::new();
    complaints.extend(rule.code.iter().filter_map(|place| line_of(place, root).err()));
    complaints.extend(rule.tests.iter().filter_map(|test| runs(test, root).err()));
    if rule.standing() == Standing::Untested && rule.level.is_must() {
        complaints.push(format!("{} without a test, or a reason", rule.level.name()));
    }
    let obeyed = matches!(rule.standing(), Standing::Tested | Standing::Untested);
    if obeyed && rule.code.is_empty() {
        complaints.push("no place in the code".to_owned());
    }
    if rule.says.is_empty() || rule.section.is_empty() {
        complaints.push("says nothing, or not where".to_owned());
    }
    if rule.deviation.is_some() && rule.not_ours.is_some() {
        complaints.push("either a deviation or not ours".to_owned());
    }
    complaints
}

/// The line of a place `path: words`, from 1.
fn line_of(place: &str, root: &Path) -> Result<usize, String> {
    let (path, words) = place.split_once(": ").ok_or_else(|| format!("`{place}` isn't `path: words`"))?;
    let text = std::fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().position(|line| line.contains(words));
    line.map(|line| line + 1).ok_or_else(|| format!("{path}: no line has `{words}`"))
}

/// Whether `scripts/…/name.pkt` or `path.rs::name` is a test that runs.
fn runs(test: &str, root: &Path) -> Result<(), String> {
    let Some((path, name)) = test.split_once("::") else {
        let text = std::fs::read_to_string(root.join("tests").join(test));
        let text = text.map_err(|error| format!("{test}: {error}"))?;
        let second = text.lines().nth(1).unwrap_or_default();
        let kept = ["// ignored:", "// fails:"].into_iter().find(|mark| second.starts_with(mark));
        return kept.map_or(Ok(()), |mark| Err(format!("{test}: is marked `{mark}`")));
    };
    let text = std::fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))?;
    let lines: Vec<_> = text.lines().map(str::trim_start).collect();
    let function = format!("fn {name}(");
    let at = lines.iter().position(|line| line.starts_with(&function));
    let at = at.ok_or_else(|| format!("{path}: no `{name}`"))?;
    // What stands above it: attributes and comments.
    let above = lines[..at].iter().rev().take_while(|line| line.starts_with(['#', '/']));
    let attributes: Vec<_> = above.filter(|line| line.starts_with('#')).collect();
    if !attributes.iter().any(|line| line.starts_with("#[test]")) {
        return Err(format!("{path}: `{name}` is no test"));
    }
    if attributes.iter().any(|line| line.starts_with("#[ignore")) {
        return Err(format!("{path}: `{name}` is ignored"));
    }
    Ok(())
}

// --- the table --------------------------------------------------------------------------------------

fn table(rfcs: &[Rfc], root: &Path) -> String {
    let mut out = String::new();
    for rfc in rfcs {
        let _ = writeln!(out, "\n{}: {}\n", rfc.name.to_uppercase().replace("RFC", "RFC "), rfc.title);
        let width = rfc.rule.iter().map(|rule| rule.id.len()).max().unwrap_or_default();
        for rule in &rfc.rule {
            row(&mut out, rule, width, root);
        }
    }
    let _ = write!(out, "\n{:<9}{:>9}", "", "rules");
    for standing in Standing::ALL {
        let _ = write!(out, "{:>11}", standing.name().to_lowercase());
    }
    out.push('\n');
    for rfc in rfcs {
        count(&mut out, &rfc.name, &rfc.rule.iter().collect::<Vec<_>>());
    }
    count(&mut out, "all", &rfcs.iter().flat_map(|rfc| &rfc.rule).collect::<Vec<_>>());
    out
}

fn row(out: &mut String, rule: &Rule, width: usize, root: &Path) {
    let Rule { id, section, says, .. } = rule;
    let (level, standing) = (rule.level.name(), rule.standing().name());
    let _ = writeln!(out, "{id:<width$}  §{section:<11} {level:<10}  {standing:<9}  {says}");
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(out, "{:width$}  {key:>24}  {value}", "");
    };
    for place in &rule.code {
        let path = place.split_once(": ").map_or(place.as_str(), |(path, _)| path);
        line("code", &line_of(place, root).map_or_else(|error| error, |at| format!("tcp/{path}:{at}")));
    }
    for test in &rule.tests {
        line("test", test);
    }
    if let Some(reason) = rule.deviation.as_ref().or(rule.not_ours.as_ref()) {
        line("why", reason);
    }
}

fn count(out: &mut String, name: &str, rules: &[&Rule]) {
    let _ = write!(out, "{name:<9}{:>9}", rules.len());
    for standing in Standing::ALL {
        let n = rules.iter().filter(|rule| rule.standing() == standing).count();
        let _ = write!(out, "{n:>11}");
    }
    out.push('\n');
}

// --- the checker itself -----------------------------------------------------------------------------

/// One mistake of each kind, and what is said of it.
const MISTAKES: [(&str, &str); 12] = [
    ("level = 'MUST'\ncode = ['src/lib.rs: mod']", "MUST without a test, or a reason"),
    ("level = 'MUST NOT'\ncode = ['src/lib.rs: mod']", "MUST NOT without a test, or a reason"),
    ("level = 'SHOULD'", "no place in the code"),
    ("level = 'SHOULD'\ncode = ['src/lib.rs']", "isn't `path: words`"),
    ("level = 'SHOULD'\ncode = ['src/nowhere.rs: mod']", "src/nowhere.rs: "),
    ("level = 'SHOULD'\ncode = ['src/lib.rs: mod nothing_of_that_name']", "no line has"),
    ("level = 'MAY'\ntests = ['scripts/open/nowhere.pkt']", "scripts/open/nowhere.pkt: "),
    ("level = 'MAY'\ntests = ['scripts/engine/too_late.pkt']", "is marked `// fails:`"),
    ("level = 'MAY'\ntests = ['tests/pair.rs::nowhere']", "no `nowhere`"),
    ("level = 'MAY'\ntests = ['tests/compliance.rs::main']", "is no test"),
    ("level = 'MAY'\ndeviation = 'a'\nnot_ours = 'b'", "either a deviation or not ours"),
    (
        "level = 'MAY'\n[[rule]]\nid = 'R-2'\nsection = '1'\nsays = 'b'\nlevel = 'MAY'",
        "R-2: twice in the list",
    ),
];

fn mistakes_are_noticed(root: &Path) -> Result<(), Failed> {
    for (mistake, complaint) in MISTAKES {
        let list = format!(
            "title = ''\nnumbered = {{ R = 2 }}\n[[rule]]\nid = 'R-2'\nsection = '1'\nsays = 'a'\n{mistake}"
        );
        let rfc: Rfc = toml::from_str(&list).map_err(|error| format!("{list}: {error}"))?;
        let said = check(&rfc, root).err().unwrap_or_default();
        for complaint in [complaint, "R-1: not in the list"] {
            if !said.contains(complaint) {
                return Err(format!("`{mistake}` isn't noticed by `{complaint}`, but by: {said}").into());
            }
        }
    }
    Ok(())
}
