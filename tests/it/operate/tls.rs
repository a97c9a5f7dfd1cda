//! Nothing between a daemon and its servers is readable on the way: PostgreSQL by `sslmode` in its URL, Redis by `rediss`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::{AssertSqlSafe, Row};
use tidegate::clock::Clock;
use tidegate::limiter::RedisLimiter;
use tidegate::limiter::redis::Settings;
use tidegate::simulator::{Latency, Simulator, SimulatorConfig};

use tidegate::store::postgres::{PgOptions, PgStore};

use super::{Member, PATIENCE, RedisServer, text, tidegate, until};
use crate::support::process::free_port;
use crate::support::servers::Postgres;

/// An authority, and a certificate for `localhost` that it signed. `name` keeps several apart.
struct Authority {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

fn authority(folder: &Path, name: &str) -> Authority {
    let path = |what: &str| folder.join(format!("{name}-{what}.pem"));
    let (ca, ca_key, certificate, key) = (path("ca"), path("ca-key"), path("certificate"), path("key"));
    let script = format!(
        "set -e; cd '{}'; \
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN={name}' \
           -keyout '{}' -out '{}'; \
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=localhost' -keyout '{}' -out '{name}.csr'; \
         printf 'subjectAltName=DNS:localhost' >'{name}.ext'; \
         openssl x509 -req -in '{name}.csr' -CA '{}' -CAkey '{}' -CAcreateserial -days 2 -extfile '{name}.ext' -out '{}'",
        folder.display(),
        ca_key.display(),
        ca.display(),
        key.display(),
        ca.display(),
        ca_key.display(),
        certificate.display(),
    );
    let done = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Authority { ca, certificate, key }
}

/// Turns TLS on. The server writes the files itself: they must be its own.
async fn encrypt(postgres: &Postgres, authority: &Authority) {
    let mut conn = postgres.connect().await;
    let folder: String = sqlx::query("show data_directory").fetch_one(&mut conn).await.unwrap().get(0);
    for (from, to) in [(&authority.certificate, "server.crt"), (&authority.key, "server.key")] {
        let pem = std::fs::read_to_string(from).unwrap();
        let sql = format!("copy (select unnest(string_to_array('{}', E'\\n'))) to '{folder}/{to}'", pem.trim_end());
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
        // It refuses a key that others can read. We are its user, or root.
        std::fs::set_permissions(Path::new(&folder).join(to), Permissions::from_mode(0o600)).unwrap();
    }
    postgres.set("ssl", "on").await;
}

/// On TLS alone.
async fn redis(authority: &Authority) -> (RedisServer, String) {
    let (port, file) = (free_port(), |path: &Path| path.display().to_string());
    let (certificate, key, ca) = (file(&authority.certificate), file(&authority.key), file(&authority.ca));
    let tls = ["--tls-port", &port.to_string(), "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let server =
        RedisServer::with(&[&tls[..], &["--tls-ca-cert-file", &ca, "--tls-auth-clients", "no"]].concat()).await;
    (server, format!("rediss://localhost:{port}"))
}

fn trusting(text: &str, ca: &Path) -> String {
    text.replace("kind = \"redis\"\n", &format!("kind = \"redis\"\nca_file = {ca:?}\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_speaks_tls_with_both_its_servers_and_only_with_those_it_can_trust() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, foreign) = (authority(folder.path(), "ours"), authority(folder.path(), "foreign"));
    let postgres = Postgres::start();
    encrypt(&postgres, &ours).await;
    let (redis, redis_url) = redis(&ours).await;
    let provider = SimulatorConfig { latency: Latency::none(), keep_arrivals: 10, ..SimulatorConfig::default() };
    let provider = Simulator::start(provider).await.unwrap();
    let url = |ca: &Path| {
        let plain = postgres.url().replace("127.0.0.1", "localhost");
        format!("{plain}?sslmode=verify-full&sslrootcert={}", ca.display())
    };
    let config = |ca: &Path| trusting(&text("d1", &url(ca), &redis_url, &provider.base_url()), ca);

    let d1 = Member::with(folder.path(), "d1", &config(&ours.ca)).await;
    d1.readyz(200, "ready").await;
    d1.enqueue("first").await;
    let sent = until(PATIENCE, || async { (provider.arrivals().len() == 1).then_some(()) }).await;
    assert!(sent.is_some(), "{:?}", d1.page("/readyz").await);
    let mut conn = postgres.connect().await;
    let sql = "select count(*), count(*) filter (where ssl) from pg_stat_ssl join pg_stat_activity using (pid) \
               where usename = 'tidegate' and pid <> pg_backend_pid() and application_name like 'tidegate%'";
    let row = sqlx::query(sql).fetch_one(&mut conn).await.unwrap();
    let (all, encrypted): (i64, i64) = (row.get(0), row.get(1));
    assert!(all > 0 && all == encrypted, "{encrypted} of {all} connections are encrypted");
    assert_eq!(redis.number("clients", "connected_clients"), 2, "the daemon's, and the one that asks");

    // Doctor sees the same, and names what is wrong with an authority that signed neither.
    let doctor = |name: &str, text: &str| {
        let file = folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        let out = tidegate(&["doctor", "--config", file.to_str().unwrap()]);
        String::from_utf8(out.stdout).unwrap()
    };
    let fine = doctor("fine", &config(&ours.ca));
    assert!(!fine.contains("UnknownIssuer") && fine.contains("postgres 1"), "{fine}");
    let strange = doctor("strange", &config(&foreign.ca));
    assert_eq!(strange.matches("UnknownIssuer").count(), 2, "{strange}");
    let nothing =
        doctor("nothing", &trusting(&text("d1", &url(&ours.ca), &redis_url, "http://x"), Path::new("/nowhere")));
    assert!(nothing.contains("limiter.ca_file /nowhere cannot be read"), "{nothing}");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let empty = doctor("empty", &trusting(&text("d1", &url(&ours.ca), &redis_url, "http://x"), &empty));
    assert!(empty.contains("expected certificates in PEM in limiter.ca_file"), "{empty}");
    // An address that no configuration could check, because it is a secret: nothing is sent in the clear by mistake.
    for (url, file, said) in [
        (
            redis_url.replace("rediss", "redis+tls"),
            ours.ca.as_path(),
            "expected one that begins with redis://, rediss://",
        ),
        (redis.url(), &ours.ca, "which has no TLS"),
    ] {
        let settings = Settings { ca_file: Some(file.to_owned()), ..Settings::default() };
        let refused = RedisLimiter::connect(&url, Clock::system(), settings).unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
    let refused = PgStore::open(PgOptions::new("https://localhost/tidegate")).await.unwrap_err().to_string();
    assert!(refused.contains("begins with postgres://"), "{refused}");
    d1.app.stop().await;
}
