//! Reads Rust sources just well enough for the laws: comments, texts and unit tests can be taken away.
//!
//! Not a parser; it knows tokens. Must never know: the laws. Next: `rooms.rs`.

use std::path::Path;

/// A file of the repository.
pub struct Source {
    /// From the root of the repository: `src/model/job.rs`.
    pub path: String,
    pub text: String,
}

/// All files below `root` with one of `extensions` (any, when empty), in order of their paths. Empty when `root`
/// does not exist; binary files are passed over.
pub fn files(root: &str, extensions: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(Path::new(root), &mut |path| {
        let fits = path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e));
        if (extensions.is_empty() || fits)
            && let Ok(text) = std::fs::read_to_string(path)
        {
            found.push((path.to_string_lossy().into_owned(), text));
        }
    });
    found.sort();
    found
}

fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            // What tests leave behind is not ours to judge.
            true if path.ends_with("node_modules") || path.ends_with("gen") || path.ends_with("__pycache__") => {}
            true => walk(&path, visit),
            false => visit(&path),
        }
    }
}

pub fn rust_files(root: &str) -> Vec<Source> {
    files(root, &["rs"]).into_iter().map(|(path, text)| Source { path, text }).collect()
}

impl Source {
    /// A file that is a test module as a whole.
    pub fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/") || self.path.starts_with("tests/")
    }

    /// `src/model/job.rs` is `["model", "job"]`; `src/lib.rs` and `src/main.rs` are the crate itself.
    pub fn module(&self) -> Vec<String> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inner.split('/').filter(|part| !matches!(*part, "lib" | "main")).map(str::to_owned).collect()
    }

    /// The code with comments and texts blanked out, line by line as before.
    pub fn code(&self) -> String {
        blank(&self.text)
    }

    /// The same without what is compiled for unit tests only.
    pub fn code_without_tests(&self) -> String {
        let mut code = self.code();
        while let Some(start) = code.find("#[cfg(test)]") {
            let end = item_end(&code, start);
            let gap: String = code[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            code.replace_range(start..end, &gap);
        }
        code
    }
}

/// Where the item that begins at `start` ends: behind its braces, or behind the semicolon before any.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0usize;
    for (at, c) in code[start..].char_indices() {
        match c {
            ';' if depth == 0 => return start + at + 1,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return start + at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let Some(end) = skipped_end(&chars, at) else {
            out.push(chars[at]);
            at += 1;
            continue;
        };
        out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// Where the comment, text or character literal that begins at `at` ends; `None` when none begins there.
fn skipped_end(chars: &[char], at: usize) -> Option<usize> {
    let next = |n: usize| chars.get(at + n).copied().unwrap_or('\0');
    let find =
        |from: usize, stop: &dyn Fn(usize) -> bool| (from..chars.len()).find(|&i| stop(i)).unwrap_or(chars.len());
    let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if next(1) == '/' => Some(find(at, &|i| chars[i] == '\n')),
        '/' if next(1) == '*' => {
            let end = find(at + 2, &|i| chars[i] == '*' && chars.get(i + 1) == Some(&'/'));
            Some((end + 2).min(chars.len()))
        }
        'r' if !word_before && (next(1) == '"' || next(1) == '#') => {
            let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
            if next(1 + hashes) != '"' {
                return None;
            }
            let closes = |i: usize| chars[i] == '"' && (1..=hashes).all(|n| chars.get(i + n) == Some(&'#'));
            Some((find(at + 2 + hashes, &closes) + 1 + hashes).min(chars.len()))
        }
        '"' => {
            let mut i = at + 1;
            while i < chars.len() && chars[i] != '"' {
                i += if chars[i] == '\\' { 2 } else { 1 };
            }
            Some((i + 1).min(chars.len()))
        }
        // A lifetime has no closing quote two characters on; a literal has, or an escape.
        '\'' if next(1) == '\\' => Some((find(at + 3, &|i| chars[i] == '\'') + 1).min(chars.len())),
        '\'' if next(2) == '\'' => Some(at + 3),
        _ => None,
    }
}

#[test]
fn texts_comments_and_tests_are_not_code() {
    let text = "fn a<'a>() { let s = \"crate::x\"; } // crate::y\n#[cfg(test)]\nmod tests { fn b() { crate::z() } }\nfn c() {}\n";
    let source = Source { path: "src/a.rs".into(), text: text.into() };
    let code = source.code_without_tests();
    assert!(!code.contains("crate::"), "{code}");
    assert!(code.contains("fn c() {}") && code.contains("<'a>"), "{code}");
    assert_eq!(code.lines().count(), text.lines().count());
}
