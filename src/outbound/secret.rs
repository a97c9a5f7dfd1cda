//! Secrets by reference: read when a provider is connected, read again when their file changes.
//!
//! A value lives in a [`SecretString`] and in the credential made of it; neither prints.
//! Errors name the reference and never the value. Must never know: HTTP. Next: `credential`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret, SecretString};

use crate::clock::Clock;
use crate::model::provider::SecretRef;

/// Longest secret, bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// How often a secret's file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells that a file was replaced or rewritten.
type Stamp = Option<(SystemTime, u64)>;

/// Makes of a secret what it is used as.
type Make<T> = Box<dyn Fn(&str) -> Result<T, String> + Send + Sync>;

/// What was made of a secret that may change while the daemon runs.
pub struct Watched<T> {
    reference: SecretRef,
    make: Make<T>,
    clock: Clock,
    now: ArcSwap<(T, Stamp)>,
    looked_at: AtomicI64,
}

impl<T> std::fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("reference", &self.reference).finish_non_exhaustive()
    }
}

impl<T: Clone> Watched<T> {
    /// Reads it for the first time. The error names the reference, never the value.
    pub fn read(reference: &SecretRef, clock: &Clock, make: Make<T>) -> Result<Watched<T>, String> {
        let first = load(reference, &make)?;
        Ok(Watched {
            reference: reference.clone(),
            make,
            clock: clock.clone(),
            looked_at: AtomicI64::new(clock.steady().0),
            now: ArcSwap::from_pointee(first),
        })
    }

    /// The one in force. A file that changed is read again; one that cannot be read leaves the old value.
    pub fn value(&self) -> T {
        let now = self.clock.steady();
        let looked_at = self.looked_at.load(Ordering::Relaxed);
        let due = now.0 - looked_at >= LOOK_EVERY.as_micros() as i64;
        // One of many callers looks; the others go on with what is there.
        if due && self.looked_at.compare_exchange(looked_at, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.look();
        }
        self.now.load().0.clone()
    }

    fn look(&self) {
        let Ok(Some(path)) = path(&self.reference) else { return };
        if stamp(&path) == self.now.load().1 {
            return;
        }
        match load(&self.reference, &self.make) {
            Ok(fresh) => self.now.store(fresh.into()),
            Err(reason) => tracing::warn!(reason, "a secret changed and cannot be read; the old value stays"),
        }
    }
}

fn load<T>(reference: &SecretRef, make: &Make<T>) -> Result<(T, Stamp), String> {
    let path = path(reference)?;
    let stamp = path.as_deref().and_then(stamp);
    let secret = resolve(reference)?;
    let unfit = |e| format!("secret {}: {e}", name(reference));
    let made = make(secret.expose_secret()).map_err(unfit)?;
    Ok((made, stamp))
}

/// `credential "x"`, `file "/y"`, `environment variable Z`.
pub(super) fn name(reference: &SecretRef) -> String {
    match reference {
        SecretRef::Credential(name) => format!("credential {name:?}"),
        SecretRef::File(path) => format!("file {}", path.display()),
        SecretRef::Env(name) => format!("environment variable {name}"),
    }
}

fn path(reference: &SecretRef) -> Result<Option<PathBuf>, String> {
    match reference {
        SecretRef::File(path) => Ok(Some(path.clone())),
        SecretRef::Env(_) => Ok(None),
        SecretRef::Credential(credential) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
            Some(folder) => Ok(Some(Path::new(&folder).join(credential))),
            None => Err(format!("secret {}: $CREDENTIALS_DIRECTORY is not set; systemd sets it", name(reference))),
        },
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// The secret's text without the line end that editors add. The error names the reference, never the value.
pub fn resolve(reference: &SecretRef) -> Result<SecretString, String> {
    let unreadable = |e: &dyn std::fmt::Display| format!("secret {}: {e}", name(reference));
    let text = match (reference, path(reference)?) {
        (SecretRef::Env(variable), _) => std::env::var(variable).map_err(|e| match e {
            std::env::VarError::NotPresent => unreadable(&"it is not set"),
            std::env::VarError::NotUnicode(_) => unreadable(&"expected UTF-8"),
        })?,
        (_, Some(path)) => {
            // Asked first, because opening a pipe would wait for its writer.
            if !std::fs::metadata(&path).map_err(|e| unreadable(&e))?.is_file() {
                return Err(unreadable(&"expected a file"));
            }
            let file = std::fs::File::open(&path).map_err(|e| unreadable(&e))?;
            let mut bytes = Vec::new();
            file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| unreadable(&e))?;
            if bytes.len() as u64 > SECRET_BYTES_MAX {
                return Err(unreadable(&format!("expected at most {SECRET_BYTES_MAX} bytes")));
            }
            String::from_utf8(bytes).map_err(|_| unreadable(&"expected UTF-8"))?
        }
        (_, None) => return Err(unreadable(&"it cannot be found")),
    };
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(unreadable(&"it is empty"));
    }
    Ok(SecretString::from(text))
}
