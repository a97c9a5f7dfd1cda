//! Imports go one way. This table is the map of the house; `src/lib.rs` tells it in prose.
//!
//! A room may name itself, the rooms listed for it, and nothing else; `room::part` admits only that part of a room.
//! Unit tests may look further. Must never know: what a room does. Next: `docs.rs`.

use crate::source::rust_files;
use crate::{Source, holds};

/// Named from anywhere: constants of the build, without state.
const ANYWHERE: &[&str] = &["mutant"];

/// What each room may import. Rooms stand in the order in which a job walks through them.
const ROOMS: &[(&str, &[&str])] = &[
    // Vocabulary and decisions: pure, so that a property test can reach every case.
    ("mutant", &[]),
    ("clock", &[]),
    ("model", &["clock"]),
    ("limit", &["clock", "model"]),
    ("plan", &["clock", "model", "limit"]),
    // Mechanisms: none knows another. Instruments are a leaf that everything with I/O may touch.
    ("telemetry", &["clock", "model"]),
    ("limiter", &["clock", "model", "limit", "telemetry"]),
    ("store", &["clock", "model", "telemetry"]),
    ("outbound", &["clock", "model", "telemetry"]),
    // Declarations become providers here; warnings about limits use their arithmetic.
    ("config", &["clock", "model", "limit", "plan"]),
    // Heart.
    ("engine", &["clock", "model", "limit", "plan", "limiter", "store", "outbound", "telemetry"]),
    // Edges. Wires see `api` and plain data, never the inside of the engine, never SQL.
    ("api", &["clock", "model", "limiter", "store", "outbound", "config", "engine", "telemetry"]),
    ("grpc", &["clock", "model", "api", "engine::status", "limiter::LimitView", "telemetry"]),
    ("http", &["clock", "model", "api", "grpc::transcode", "engine::status", "telemetry"]),
    // A provider must judge the limits by its own book, so it shares no limit code with the daemon.
    ("simulator", &["clock", "model"]),
    // Frame: the only file that knows every room.
    (
        "app",
        &[
            "clock",
            "model",
            "limit",
            "plan",
            "limiter",
            "store",
            "outbound",
            "config",
            "engine",
            "api",
            "grpc",
            "http",
            "simulator",
            "telemetry",
        ],
    ),
    // The topmost room: `serve`, `demo` and `bench` run the app; the other commands are clients of its wires.
    (
        "cli",
        &["clock", "model", "limit", "plan", "limiter", "store", "config", "grpc", "simulator", "telemetry", "app"],
    ),
    ("main", &["cli"]),
];

#[test]
fn imports_go_one_way() {
    let mut findings = Vec::new();
    for file in rust_files("src").iter().filter(|f| !f.is_test() && f.path != "src/lib.rs") {
        let room = if file.path == "src/main.rs" { "main".to_owned() } else { file.module()[0].clone() };
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            findings.push(format!("{}: a new room; give it a place in tests/tidy/rooms.rs", file.path));
            continue;
        };
        for (line, path) in imports(file) {
            let named = path.join("::");
            let within = |door: &str| named == door || named.starts_with(&format!("{door}::"));
            if path[0] != room
                && !ANYWHERE.contains(&path[0].as_str())
                && ROOMS.iter().any(|(name, _)| *name == path[0])
                && !allowed.iter().any(|d| within(d))
            {
                findings.push(format!("{}:{line}: {room} must not know {named}", file.path));
            }
        }
    }
    let law = "imports go one way (src/lib.rs): move the code down, or hand the value in from above";
    holds(law, findings);
}

#[test]
fn the_map_has_no_way_back() {
    for (at, (room, allowed)) in ROOMS.iter().enumerate() {
        for door in *allowed {
            let target = door.split("::").next().unwrap();
            let place = ROOMS.iter().position(|(name, _)| *name == target);
            assert!(place.is_some_and(|p| p < at), "{room} may import {door}, which stands behind it or nowhere");
        }
    }
}

/// Every path into the crate that the file names, with its line: `use` trees are spread out, `super` is resolved.
fn imports(file: &Source) -> Vec<(usize, Vec<String>)> {
    let code = file.code_without_tests();
    let mut found = Vec::new();
    for start in ["crate::", "tidegate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || before == '_' || before == ':' || before == '$' {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let mut base = if start == "super::" { file.module() } else { Vec::new() };
            let mut rest = &code[at..];
            while let Some(deeper) = rest.strip_prefix("super::") {
                base.pop();
                rest = deeper;
            }
            let rest = rest.strip_prefix("crate::").or(rest.strip_prefix("tidegate::")).unwrap_or(rest);
            let mut leaves = Vec::new();
            spread(rest, base, &mut leaves);
            found.extend(leaves.into_iter().filter(|path| !path.is_empty()).map(|path| (line, path)));
        }
    }
    found
}

/// Reads one path or `{tree}` at the start of `text`, adds its leaves behind `base`, returns what is left.
fn spread<'a>(text: &'a str, base: Vec<String>, leaves: &mut Vec<Vec<String>>) -> &'a str {
    let mut text = text.trim_start();
    if let Some(inside) = text.strip_prefix('{') {
        text = inside;
        loop {
            text = spread(text, base.clone(), leaves).trim_start();
            match text.strip_prefix(',') {
                Some(more) if !more.trim_start().starts_with('}') => text = more,
                Some(end) => return end.trim_start().strip_prefix('}').unwrap_or(end),
                None => return text.strip_prefix('}').unwrap_or(text),
            }
        }
    }
    let length = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(text.len());
    let (name, rest) = text.split_at(length);
    let mut path = base;
    if !name.is_empty() && name != "self" && name != "*" {
        path.push(name.to_owned());
    }
    match rest.strip_prefix("::") {
        Some(deeper) if !deeper.starts_with('<') => spread(deeper, path, leaves),
        _ => {
            leaves.push(path);
            // `as name` belongs to the leaf.
            let after = rest.trim_start();
            match after.strip_prefix("as ") {
                Some(renamed) => renamed.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
                None => rest,
            }
        }
    }
}

#[test]
fn every_way_of_naming_a_room_is_seen() {
    let text =
        "use crate::{engine::{gate, status::X as Y}, store};\nfn f() { super::super::api::jobs::g(crate::limit::H) }\n";
    let file = Source { path: "src/grpc/convert.rs".into(), text: text.into() };
    let mut seen: Vec<String> =
        imports(&file).into_iter().map(|(line, p)| format!("{line} {}", p.join("::"))).collect();
    seen.sort();
    assert_eq!(seen, ["1 engine::gate", "1 engine::status::X", "1 store", "2 api::jobs::g", "2 limit::H"]);
}
