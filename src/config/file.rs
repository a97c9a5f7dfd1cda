//! Reading configuration files without trusting them: no pipes, no devices, no surprises of encoding, no gigabytes.
//!
//! Must never know: TOML.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::{Problem, Source};

/// Largest file, bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Files in the providers' folder at most.
const FILES_MAX: usize = 10_000;

/// Reads a file as text. Line ends and a byte order mark of UTF-8 are taken as they come; other encodings are refused.
pub fn read(path: &Path) -> Result<Arc<Source>, Problem> {
    let unreadable = |what: &dyn std::fmt::Display| Problem::new(format!("{}: {what}", path.display()));
    // Asked first: opening a pipe would wait for its writer, for ever perhaps.
    let meta = std::fs::metadata(path).map_err(|e| unreadable(&e))?;
    if !meta.is_file() {
        let kind = if meta.is_dir() { "a folder" } else { "a pipe, socket or device" };
        return Err(unreadable(&format_args!("expected a file, got {kind}")));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| unreadable(&e))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| unreadable(&e))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(&format_args!("expected at most {FILE_BYTES_MAX} bytes, got more")));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(unreadable(&"expected UTF-8, got UTF-16").help("save the file as UTF-8"));
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let at = e.utf8_error().valid_up_to();
            return Err(unreadable(&format_args!("expected UTF-8, got something else at byte {at}")));
        }
    };
    if let Some(at) = text.find('\0') {
        return Err(unreadable(&format_args!("expected a text, got a NUL at byte {at}")));
    }
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    Ok(Arc::new(Source { name: path.display().to_string(), text }))
}

/// The `*.toml` files of a folder, by name. `None`: there is no such folder.
pub fn folder(path: &Path) -> Result<Option<Vec<PathBuf>>, Problem> {
    let unreadable = |what: &dyn std::fmt::Display| Problem::new(format!("{}: {what}", path.display()));
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(&e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(|e| unreadable(&e))?.path();
        let hidden = file.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if file.extension().is_some_and(|e| e == "toml") && !hidden {
            files.push(file);
        }
    }
    if files.len() > FILES_MAX {
        return Err(unreadable(&format_args!("expected at most {FILES_MAX} files, got {}", files.len())));
    }
    files.sort();
    Ok(Some(files))
}
