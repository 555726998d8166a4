//! The page as far as no browser is needed; `make page` looks at it in one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::super::super::testing::{HTTP, Peer};
use super::PAGE;

fn page() -> &'static str {
    core::str::from_utf8(PAGE).expect("UTF-8")
}

/// What is between `<name>` and `</name>`, which are there once.
fn inside(name: &str) -> &'static str {
    let (_, rest) = page().split_once(&format!("<{name}>")).expect("it begins");
    let (inside, rest) = rest.split_once(&format!("</{name}>")).expect("it ends");
    assert!(!rest.contains(&format!("<{name}")), "one of them: {name}");
    inside
}

/// The whole answer, and the value of a field in it.
fn answer() -> String {
    let mut peer = Peer::connect(HTTP);
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    String::from_utf8(peer.take()).expect("UTF-8")
}

#[test]
fn the_page_is_small_and_comes_whole() {
    assert!(PAGE.len() < 40 << 10, "{} octets", PAGE.len());
    let answer = answer();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert_eq!(body, page());
    assert!(head.ends_with(&format!("\r\nContent-Length: {}", PAGE.len())), "{head}");
}

/// A script or style that was changed has another digest: the browser would not run it. The answer says which.
#[test]
fn the_policy_allows_the_pages_own_script_and_style_and_nothing_else() {
    let digest = |name| STANDARD.encode(Sha256::digest(inside(name)));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        digest("script"),
        digest("style")
    );
    let answer = answer();
    assert!(answer.contains(&format!("\r\nContent-Security-Policy: {policy}\r\n")), "should be: {policy}");
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    // The namespace is a name, and never asked for.
    let page = page().replace("http://www.w3.org/2000/svg", "");
    for word in
        ["http:", "https:", "//cdn", "@import", "src=", "url(http", " style=\"", "onclick=\"", "javascript:"]
    {
        assert!(!page.contains(word), "{word}");
    }
    for link in page.split("href=\"").skip(1) {
        assert!(link.starts_with("data:,\"") || link.starts_with('/'), "{link:.40}");
    }
}

/// The script asks for what is there: ids of the document, counters and states of the stack.
#[test]
fn the_script_names_what_exists() {
    let script = inside("script");
    for id in script.split("$(\"").skip(1) {
        // Some are put together: "c-" + name.
        let Some((id, _)) = id.split_once('"').filter(|(_, rest)| rest.starts_with(')')) else { continue };
        assert!(page().contains(&format!("id=\"{id}\"")), "no element {id}");
    }
    let totals = byway_tcp::counters::Totals::default();
    for name in ["BywayAnswered", "BywayFramesIn", "BywayFramesOut"] {
        assert!(script.contains(name) && totals.counters.iter().any(|(known, _)| known == name), "{name}");
    }
    for state in byway_tcp::tcb::state::State::ALL {
        assert!(script.contains(&format!("\"{}\": [\"", state.name())), "{state:?}");
    }
}

/// Every control has a name for those who don't see it.
#[test]
fn every_control_is_labelled() {
    for control in ["<input", "<select"] {
        for (at, _) in page().match_indices(control) {
            let before = &page()[..at];
            let labelled = before.rfind("<label").expect("a label") > before.rfind("</label").unwrap_or(0);
            assert!(labelled, "{}", &page()[at..at + 40]);
        }
    }
    assert!(page().matches("role=\"img\"").count() == page().matches("aria-label=\"").count() - 1);
}
