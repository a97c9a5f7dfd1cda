//! The documents are run: every ```sh test block of README.md, docs/quickstart.md, docs/rest.md, docs/webhooks.md, docs/workers.md,
//! docs/alerts.md, docs/collections.md, docs/calls.md, docs/schedules.md and of the READMEs of the examples, one script per document.
//!
//! Each runs in a folder of its own, on ports of its own: the well-known ones are replaced in the blocks, in what `init`
//! writes, and in the files of an example, which are copied. Blocks marked `buf` need that tool and are left out, with a
//! word, where it is missing. Next: `examples.rs`, which looks at what the examples left.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The blocks in order; those marked `buf` only when `buf` is there.
fn script(document: &str, buf: bool) -> String {
    let text = std::fs::read_to_string(Path::new(ROOT).join(document)).unwrap();
    let mut script = String::new();
    let mut inside = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some("sh test") => inside = true,
            Some("sh test buf") if buf => inside = true,
            Some("sh test buf") => crate::support::left_out(&format!("{document}: a block, as buf is not installed")),
            Some(_) => inside = false,
            None if inside => script.extend([line, "\n"]),
            None => {}
        }
    }
    assert!(script.contains("tidegate serve"), "{document} has no blocks to run");
    script
}

fn buf() -> Option<PathBuf> {
    let ours = Path::new(ROOT).join("target/tools/node_modules/.bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(ours).chain(std::env::split_paths(&path)).find(|folder| folder.join("buf").is_file())
}

/// Free ports in place of 7070, 7071 and 8080. Held together until all are known, so that they differ.
fn ports() -> [(&'static str, String); 3] {
    let held = ["127.0.0.1:7070", "127.0.0.1:7071", "127.0.0.1:8080"].map(|known| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (known, listener)
    });
    held.map(|(known, listener)| (known, listener.local_addr().unwrap().to_string()))
}

/// What a script left behind.
pub struct Ran {
    pub folder: tempfile::TempDir,
    /// All it printed.
    pub said: String,
}

/// Copies an example with its folders; what runs there leaves its own behind and is not copied.
fn copy(from: &Path, to: &Path, edit: &impl Fn(String) -> String) {
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&path, &to, edit);
        } else if ["md", "toml", "sh", "py", "json"].contains(&&*ending) {
            std::fs::write(&to, edit(std::fs::read_to_string(&path).unwrap())).unwrap();
            std::fs::set_permissions(&to, path.metadata().unwrap().permissions()).unwrap();
        }
    }
}

/// Runs a document's script to a good end. That of an example starts with the example's files around it.
pub fn run(document: &str, env: &[(&str, String)]) -> Ran {
    let (folder, buf, ports) = (tempfile::tempdir().unwrap(), buf(), ports());
    let edit = |text: String| ports.iter().fold(text, |text, (known, free)| text.replace(known, free));
    let blocks = edit(script(document, buf.is_some()));
    let edits: String = ports.iter().map(|(known, free)| format!("s/{known}/{free}/;")).collect();
    if let Some(example) = Path::new(document).parent().filter(|parent| parent.starts_with("examples")) {
        copy(&Path::new(ROOT).join(example), folder.path(), &edit);
    }
    let tools = folder.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    // `init` writes the well-known ports; everything else goes straight to the program.
    let wrapper = format!(
        "#!/bin/bash\n[ \"$1\" = init ] || exec '{program}' \"$@\"\n'{program}' \"$@\" && sed -i '{edits}' tidegate.toml \
         providers.d/*.toml\n",
        program = env!("CARGO_BIN_EXE_tidegate")
    );
    std::fs::write(tools.join("tidegate"), wrapper).unwrap();
    std::fs::set_permissions(tools.join("tidegate"), PermissionsExt::from_mode(0o755)).unwrap();
    // Everything is ended with the script; the daemon's port may take a moment, which `until` in the text waits for.
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{blocks}");
    std::fs::write(folder.path().join("script.sh"), script).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let buf = buf.map(|folder| format!(":{}", folder.display())).unwrap_or_default();
    let out = Command::new("timeout")
        .args(["180", "bash", "script.sh"])
        .current_dir(folder.path())
        .env("PATH", format!("{}{buf}:{path}", tools.display()))
        .env("XDG_RUNTIME_DIR", folder.path())
        .env_remove("TIDEGATE_ADDR")
        .envs(env.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{document}: {}\n{said}", out.status);
    Ran { folder, said }
}

#[test]
fn the_readme_does_what_it_says() {
    let Ran { said, .. } = run("README.md", &[]);
    assert!(said.contains("200 of 200 jobs are final (200 delivered)"), "{said}");
}

#[test]
fn rest_does_what_its_page_says() {
    let Ran { said, .. } = run("docs/rest.md", &[]);
    assert!(said.contains("\"jobId\"") && said.contains("\"payload\":{\"id\":\"user:7\""), "{said}");
    assert!(said.contains("data:{") || said.contains("data: {"), "{said}");
    assert!(said.contains("BAD_ID"), "{said}");
}

#[test]
fn workers_do_what_their_page_says() {
    let Ran { said, .. } = run("docs/workers.md", &[]);
    assert!(said.contains("no worker has a free seat for it"), "{said}");
}

#[test]
fn alerts_do_what_their_page_says() {
    let Ran { said, .. } = run("docs/alerts.md", &[]);
    for told in ["alert-raised", "tidegate_alert_raised{alert=\"crm_late\",provider=\"crm\"} 1", "alert-cleared"] {
        assert!(said.contains(told), "{told}: {said}");
    }
}

#[test]
fn collections_do_what_their_page_says() {
    let Ran { said, .. } = run("docs/collections.md", &[]);
    assert!(said.contains("3 pages, 250 items") && said.contains("unchanged o1"), "{said}");
    assert!(said.lines().any(|line| line.trim() == "251"), "one push of each: {said}");
}

#[test]
fn calls_do_what_their_page_says() {
    let Ran { said, .. } = run("docs/calls.md", &[]);
    assert_eq!(said.matches("200 (miss)").count(), 3, "{said}");
    assert_eq!(said.matches("200 (hit)").count(), 1, "{said}");
    assert!(said.contains("refused") && said.contains("there is room again in "), "{said}");
}

#[test]
fn schedules_do_what_their_page_says() {
    let Ran { said, .. } = run("docs/schedules.md", &[]);
    assert!(said.contains("started by hand") && said.contains("schedule often"), "{said}");
}

#[test]
fn webhooks_do_what_their_page_says() {
    let Ran { said, .. } = run("docs/webhooks.md", &[]);
    for told in [r#"{"accepted":true}"#, "WEBHOOK_REPEATED", "BAD_SIGNATURE", r#""id":"7""#] {
        assert!(said.contains(told), "{told}: {said}");
    }
}

#[test]
fn the_quickstart_does_what_it_says() {
    let Ran { said, .. } = run("docs/quickstart.md", &[]);
    assert!(said.contains("500 of 500 jobs are final (500 delivered)"), "{said}");
    assert!(said.contains("tidegate_jobs_finished_total{"), "{said}");
}
