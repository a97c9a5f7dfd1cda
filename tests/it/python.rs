//! A client in another language: generated from `proto/`, it enqueues, watches, and resumes after a restart.
//!
//! The checks stand in tests/clients/python/check.py; here are the daemon that it restarts and the provider behind.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::left_out;
use crate::support::process::{Place, Provider};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A daemon that is started and restarted by a script, as an operator would.
struct Script {
    folder: PathBuf,
}

impl Script {
    /// Kills the daemon if there is one, and starts it. Returns once the old one is gone.
    fn write(folder: &Path, config: &Path) -> Script {
        let text = format!(
            "#!/bin/bash\n\
             set -e\n\
             cd '{folder}'\n\
             if [ -s pid ]; then\n\
             \x20 pid=$(cat pid)\n\
             \x20 kill -9 \"$pid\"\n\
             \x20 while [ -d /proc/$pid ] && ! grep -q '^State:.*Z' /proc/$pid/status; do sleep 0.05; done\n\
             fi\n\
             setsid '{program}' serve --config '{config}' </dev/null >>daemon.log 2>&1 &\n\
             echo $! >pid\n",
            folder = folder.display(),
            program = env!("CARGO_BIN_EXE_tidegate"),
            config = config.display(),
        );
        std::fs::write(folder.join("restart.sh"), text).unwrap();
        Script { folder: folder.to_owned() }
    }

    fn command(&self) -> String {
        format!("bash '{}'", self.folder.join("restart.sh").display())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.folder.join("pid")).unwrap_or_default();
        if !pid.trim().is_empty() {
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}

#[tokio::test]
async fn a_python_client_enqueues_watches_and_resumes_after_a_restart() {
    let python = Path::new(ROOT).join("target/tools/python/bin/python");
    if !python.exists() {
        return left_out("the Python client, as grpcio-tools is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::start(&["--latency", "2ms", "--tail-share", "0"], &folder.path().join("log")).await;
    let place = Place::new(folder.path(), folder.path(), "");
    let script = Script::write(folder.path(), &place.config);
    assert!(Command::new("bash").arg(folder.path().join("restart.sh")).status().unwrap().success());
    let out = tokio::process::Command::new(python)
        .arg(format!("{ROOT}/tests/clients/python/check.py"))
        .args(["--address", &format!("127.0.0.1:{}", place.port), "--provider-url", &provider.base_url])
        .args(["--restart-command", &script.command()])
        .output()
        .await
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}\n{}", place.log_tail());
    assert!(said.contains("the watch went on where it was") && said.contains("all held"), "{said}");
}
