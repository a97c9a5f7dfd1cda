//! Configuration files as they are found on disks: folders, pipes, other encodings, other machines' secrets.

use std::path::{Path, PathBuf};

use tidegate::config::{LoadOptions, SecretCheck, load};

const CRM: &str =
    "[providers.crm]\nbase_url = \"https://crm.example\"\n[providers.crm.operations.op]\nrequest = \"POST /x\"\n";

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn options(file: PathBuf) -> LoadOptions {
    LoadOptions { file: Some(file), ..LoadOptions::default() }
}

/// What is said about a file of these bytes.
fn said(bytes: impl AsRef<[u8]>) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "tidegate.toml", bytes);
    load(&options(file)).map(drop).map_err(|p| p.to_string())
}

#[test]
fn an_empty_file_a_byte_order_mark_and_windows_line_ends_are_fine() {
    said("").unwrap();
    said("\u{feff}[server]\r\nlisten = \"127.0.0.1:1\"\r\n").unwrap();
    said("# only a comment").unwrap();
}

#[test]
fn what_is_no_text_is_refused_with_a_reason() {
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain("[server]".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    assert!(said(utf16).unwrap_err().contains("expected UTF-8, got UTF-16"));
    assert!(said(b"a = \"\xff\"").unwrap_err().contains("got something else at byte 5"));
    assert!(said(b"a = 1\0").unwrap_err().contains("a NUL at byte 5"));
    assert!(said(vec![b'#'; (1 << 20) + 1]).unwrap_err().contains("expected at most 1048576 bytes"));
}

#[test]
fn a_folder_a_pipe_and_nothing_are_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: PathBuf| load(&options(path)).unwrap_err().to_string();
    assert!(refused(folder.path().to_owned()).contains("expected a file, got a folder"));
    assert!(refused(folder.path().join("none.toml")).contains("No such file"));
    let pipe = folder.path().join("pipe.toml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(refused(pipe).contains("a pipe, socket or device"));
    assert!(refused("/dev/zero".into()).contains("a pipe, socket or device"));
}

#[test]
fn providers_stand_in_files_of_their_own_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "tidegate.toml", CRM);
    let other = CRM.replace("crm", "mail");
    write(folder.path(), "providers.d/mail.toml", &other);
    write(folder.path(), "providers.d/.hidden.toml", "nonsense");
    write(folder.path(), "providers.d/readme.md", "nonsense");
    let loaded = load(&options(file.clone())).unwrap();
    let names: Vec<&str> = loaded.config.providers.iter().map(|p| p.provider.name.as_str()).collect();
    assert_eq!(names, ["crm", "mail"]);
    assert_eq!(loaded.config.providers[1].source, other);
    assert!(loaded.config.providers[1].origin.contains("mail.toml:1:"), "{}", loaded.config.providers[1].origin);
    write(folder.path(), "providers.d/crm.toml", CRM);
    write(folder.path(), "providers.d/x.toml", "[server]\nlisten = \"127.0.0.1:1\"");
    let problems = load(&options(file)).unwrap_err();
    let text = problems.to_string();
    assert_eq!(problems.len(), 2, "{text}");
    assert!(text.contains("the provider `crm` is declared twice") && text.contains("the first one"), "{text}");
    assert!(text.contains("expected only [providers.NAME]"), "{text}");
}

#[test]
fn a_folder_that_was_asked_for_has_to_exist() {
    assert!(said("providers_dir = \"gone\"").unwrap_err().contains("there is no folder"));
}

#[test]
fn a_missing_secret_is_named_and_a_present_one_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(folder.path(), "secret", "canary");
    let with = |auth: &str| CRM.replacen('\n', &format!("\nauth = {auth}\n"), 1);
    let file = |auth: &str| options(write(folder.path(), "tidegate.toml", with(auth)));
    let cases = [
        ("{ bearer = { env = \"CRM_KEY\" } }", "the variable CRM_KEY is not set"),
        ("{ bearer = { file = \"/none/such\" } }", "there is no file /none/such"),
        ("{ bearer = { credential = \"crm_key\" } }", "credential \"crm_key\": $CREDENTIALS_DIRECTORY is not set"),
    ];
    for (auth, sentence) in cases {
        let text = load(&file(auth)).unwrap_err().to_string();
        assert!(text.contains(sentence), "{text}");
        load(&LoadOptions { secrets: SecretCheck::Skipped, ..file(auth) }).unwrap();
    }
    let mut there = file("{ bearer = { env = \"CRM_KEY\" } }");
    there.env.insert("CRM_KEY".into(), "canary".into());
    let loaded = load(&there).unwrap();
    assert!(!loaded.explain().contains("canary") && !format!("{loaded:?}").contains("canary"));
    assert!(loaded.explain().contains("providers.crm.auth.bearer.env = \"CRM_KEY\""));
    load(&file(&format!("{{ bearer = {{ file = {secret:?} }} }}"))).unwrap();
    let mut credentials = file("{ bearer = { credential = \"secret\" } }");
    credentials.env.insert("CREDENTIALS_DIRECTORY".into(), folder.path().to_str().unwrap().into());
    load(&credentials).unwrap();
}

#[test]
fn the_environment_can_change_a_provider_and_its_source_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(write(folder.path(), "tidegate.toml", CRM));
    options.env.insert("TIDEGATE__PROVIDERS__CRM__IN_FLIGHT_MAX".into(), "3".into());
    let loaded = load(&options).unwrap();
    let declared = &loaded.config.providers[0];
    assert_eq!(declared.provider.in_flight_max, 3);
    let again = tidegate::config::provider::parse(&declared.source, "again").unwrap();
    assert_eq!(again[0], *declared.provider);
}

#[test]
fn listeners_stay_on_this_machine() {
    for address in ["0.0.0.0:7070", "192.168.1.1:7070", "[::]:7070", "8.8.8.8:1"] {
        let text = said(format!("[server]\nlisten = \"{address}\"")).unwrap_err();
        assert!(text.contains("no TLS and no authentication yet"), "{text}");
    }
    assert!(said("[http]\nlisten = \"localhost:80\"").unwrap_err().contains("did you mean \"127.0.0.1:80\"?"));
    said("[http]\nlisten = \"[::1]:0\"").unwrap();
}
