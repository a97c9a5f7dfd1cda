//! The unit under systemd: checked by systemd's own tools, and run by a systemd of its own in a box.
//!
//! What cannot be done on this machine is said in one line. The steps stand in `scripts/systemd-box-steps.sh`.

use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");
/// How far the service may be exposed, by systemd's count from 0 to 100: 1.2 of 10. A network daemon has about 1.0.
const EXPOSURE_MAX: &str = "12";
/// The exit code of a script that could not be run here.
const SKIPPED: i32 = 77;

fn analyze(args: &[&str]) -> Option<Output> {
    let out = Command::new("systemd-analyze").args(args).env("SYSTEMD_COLORS", "0").output();
    if out.is_err() {
        eprintln!("skipped: systemd-analyze is not installed");
    }
    out.ok()
}

/// The unit with the program of this build, since the installed one need not be there.
fn unit() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(format!("{ROOT}/systemd/tidegate.service")).unwrap();
    let path = folder.path().join("tidegate.service");
    std::fs::write(&path, text.replace("/usr/bin/tidegate", TIDEGATE)).unwrap();
    (folder, path.to_string_lossy().into_owned())
}

#[test]
fn systemd_has_nothing_to_say_about_the_unit() {
    let (_folder, path) = unit();
    let Some(out) = analyze(&["verify", "--man=no", &path]) else { return };
    // It warns about what it does not know and still ends with 0.
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_service_is_shut_in_as_far_as_a_network_daemon_can_be() {
    let (_folder, path) = unit();
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let Some(out) = analyze(&["security", "--no-pager", "--offline=true", &threshold, &path]) else { return };
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}", said.lines().filter(|l| !l.starts_with('✓')).collect::<Vec<_>>().join("\n"));
}

#[test]
fn the_installed_configuration_is_a_good_one() {
    let file = format!("{ROOT}/systemd/tidegate.toml");
    let out = Command::new(TIDEGATE).args(["check-config", &file]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn the_daemon_lives_under_systemd() {
    let out = Command::new(format!("{ROOT}/scripts/systemd-box-test.sh")).arg(TIDEGATE).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    match out.status.code() {
        Some(SKIPPED) => eprintln!("{said}"),
        code => assert_eq!(code, Some(0), "{said}"),
    }
}
