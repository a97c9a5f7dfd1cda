//! What the documents say about the code is compared with the code: the state diagram, the configuration manual.
//!
//! Must never know: prose. Next: docs/guarantees.md, src/config/default.toml.

use std::path::Path;

use tidegate::model::state::{Event, State};

use crate::holds;
use crate::source::{files, rust_files};

/// The transition table as a Mermaid diagram: one line per pair of states, with all events between them.
fn state_diagram() -> String {
    let mut lines = vec!["stateDiagram-v2".to_owned(), "    [*] --> waiting".to_owned()];
    for from in State::ALL {
        for to in State::ALL {
            let events: Vec<_> = Event::ALL.into_iter().filter(|e| from.on(*e) == Some(to)).map(Event::name).collect();
            if !events.is_empty() {
                lines.push(format!("    {from} --> {to}: {}", events.join(", ")));
            }
        }
    }
    lines.join("\n")
}

#[test]
fn the_state_diagram_is_the_transition_table() {
    let text = std::fs::read_to_string("docs/guarantees.md").expect("docs/guarantees.md is part of the repository");
    let diagram = state_diagram();
    let shown = text.split("```mermaid\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap_or("");
    assert_eq!(shown, diagram, "\nput this into the ```mermaid block of docs/guarantees.md:\n\n{diagram}\n");
}

/// Fields of the structs that are read from TOML, by file.
fn config_keys() -> Vec<(String, String)> {
    let mut keys = Vec::new();
    let sources =
        rust_files("src/config").into_iter().chain(rust_files("src").into_iter().filter(|f| f.path == "src/config.rs"));
    for file in sources.filter(|f| !f.is_test()) {
        let code = file.code_without_tests();
        for (at, _) in code.match_indices("Deserialize") {
            let Some(body) = code[at..].split_once("struct ").and_then(|(_, rest)| rest.split_once('{')) else {
                continue;
            };
            // A tuple struct or an enum stands between: these have no keys.
            if body.0.contains(';') || body.0.contains('}') || code[at..].find("enum ") < code[at..].find("struct ") {
                continue;
            }
            let fields = body.1.split('}').next().unwrap_or("");
            keys.extend(fields.lines().filter_map(field).map(|key| (file.path.clone(), key)));
        }
    }
    keys
}

fn field(line: &str) -> Option<String> {
    let line =
        line.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ").trim_start_matches("pub ");
    let (name, kind) = line.split_once(':')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (is_name && !kind.starts_with(':')).then(|| name.to_owned())
}

#[test]
fn every_key_of_the_configuration_is_in_its_manual() {
    let manual = Path::new("src/config/default.toml");
    let Ok(text) = std::fs::read_to_string(manual) else {
        assert!(
            files("src/config", &["rs"]).is_empty(),
            "write src/config/default.toml: it is the manual of src/config"
        );
        return;
    };
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let missing = config_keys().into_iter().filter(|(_, key)| !words.contains(&key.as_str()));
    let findings = missing.map(|(path, key)| format!("{path}: {key}")).collect();
    holds("describe the key in src/config/default.toml, with unit, bounds and default", findings);
}

/// Names in backquotes that read like a test's: a sentence of four words or more.
fn tests_named(text: &str) -> Vec<&str> {
    let is_name = |word: &str| {
        word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    text.split('`').skip(1).step_by(2).filter(|word| is_name(word)).collect()
}

#[test]
fn every_promise_names_tests_that_exist() {
    let text = std::fs::read_to_string("docs/guarantees.md").expect("docs/guarantees.md is part of the repository");
    let sources: Vec<String> = rust_files("tests").into_iter().chain(rust_files("src")).map(|f| f.text).collect();
    let exists = |name: &str| sources.iter().any(|source| source.contains(&format!("fn {name}(")));
    let missing = tests_named(&text).into_iter().filter(|name| !exists(name)).map(str::to_owned).collect();
    holds("docs/guarantees.md names tests that exist", missing);
    let promises: Vec<&str> = text.split("\n**P").skip(1).map(|p| p.split("\n\n").next().unwrap_or("")).collect();
    assert_eq!(promises.len(), 9, "nine promises, each in a paragraph of its own that begins with **P");
    let bare = promises.iter().filter(|p| tests_named(p).is_empty()).map(|p| p.lines().next().unwrap_or("").to_owned());
    holds("a promise without a test is a wish: name one", bare.collect());
}
