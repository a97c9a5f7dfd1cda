//! Real servers for tests: a PostgreSQL of our own (`scripts/servers.sh`), and on it a database per test, copied from one
//! that was migrated once and dropped when the test is over.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tidegate::store::Store;
use tidegate::store::postgres::{PgOptions, PgStore};

use crate::torture_clock::faked_clock;

/// A number of ours, so that one test process makes the template and the others wait for it.
const TEMPLATE_LOCK: i64 = 7_598_263_422_144_913_003;

/// A database of a test's own.
pub struct Database {
    server: String,
    pub name: String,
}

/// `scripts/servers.sh VERB`, for the servers of this checkout or of a folder of their own.
fn script(verb: &str, folder: Option<&Path>, env: &[(String, String)]) -> String {
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/servers.sh"));
    script.envs(env.iter().map(|(name, value)| (name, value)));
    script.envs(folder.map(|folder| ("TIDEGATE_SERVERS", folder)));
    let done = script.arg(verb).output().expect("bash is there");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "scripts/servers.sh {verb}: {said}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// URL of the server, started if need be.
fn server() -> String {
    script("postgres", None, &[])
}

/// A PostgreSQL of one test alone, so that it may be mistreated. With one empty database.
pub struct Postgres {
    folder: PathBuf,
    url: String,
}

impl Postgres {
    pub fn start() -> Postgres {
        let folder = Postgres::folder();
        let url = script("postgres", Some(&folder), &[]);
        Postgres { folder, url }
    }

    /// Not below a folder of the test's: the server runs as another user.
    fn folder() -> PathBuf {
        std::env::temp_dir().join(format!("tidegate-postgres-{}", std::process::id()))
    }

    /// One whose clock is set by [`Postgres::clock`]; it looks there once a second.
    pub fn with_a_clock(library: &str) -> Postgres {
        let (folder, clock) = (Postgres::folder(), Postgres::folder().join("clock"));
        std::fs::create_dir_all(&folder).unwrap();
        let mut env = faked_clock(library, &clock);
        env.retain(|(name, _)| name != "FAKETIME_NO_CACHE");
        env.push(("FAKETIME_CACHE_DURATION".to_owned(), "1".to_owned()));
        let url = script("postgres", Some(&folder), &env);
        Postgres { folder, url }
    }

    pub fn clock(&self) -> PathBuf {
        self.folder.join("clock")
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn port(&self) -> u16 {
        self.url.parse::<url::Url>().unwrap().port().unwrap()
    }

    /// As after a crash of the machine: killed, and started again from its log.
    pub fn crash(&self) {
        script("restart", Some(&self.folder), &[]);
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Changes a setting of the running server, for good.
    pub async fn set(&self, name: &str, value: &str) {
        let mut conn = self.connect().await;
        run(&mut conn, format!("alter system set {name} = '{value}'")).await;
        run(&mut conn, "select pg_reload_conf()".to_owned()).await;
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        script("stop", Some(&self.folder), &[]);
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn on(server: &str, database: &str) -> String {
    format!("{}/{database}", server.strip_suffix("/postgres").expect("the script prints the database postgres"))
}

async fn run(conn: &mut PgConnection, sql: String) {
    sqlx::query(AssertSqlSafe(sql.clone()))
        .persistent(false)
        .execute(conn)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// Named after the migrations, so that a changed one makes another template.
fn template_name() -> String {
    let mut files: Vec<_> =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres")).unwrap().flatten().collect();
    files.sort_by_key(|file| file.file_name());
    let texts: String = files.iter().map(|file| std::fs::read_to_string(file.path()).unwrap()).collect();
    let hash = texts.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("template_{hash:016x}")
}

impl Database {
    /// A migrated and empty one.
    pub async fn new() -> Self {
        let template = template_name();
        let database = Database::named(server());
        let mut conn = PgConnection::connect(&database.server).await.unwrap();
        run(&mut conn, format!("select pg_advisory_lock({TEMPLATE_LOCK})")).await;
        let there = sqlx::query("select from pg_database where datname = $1").bind(&template);
        if there.fetch_optional(&mut conn).await.unwrap().is_none() {
            run(&mut conn, format!("drop database if exists {template}_new")).await;
            run(&mut conn, format!("create database {template}_new")).await;
            let url = on(&database.server, &format!("{template}_new"));
            PgStore::open(PgOptions::new(url)).await.unwrap().close().await;
            run(&mut conn, format!("alter database {template}_new rename to {template}")).await;
        }
        run(&mut conn, format!("select pg_advisory_unlock({TEMPLATE_LOCK})")).await;
        run(&mut conn, format!("create database {} template {template}", database.name)).await;
        database
    }

    /// One without any table.
    pub async fn bare() -> Self {
        let database = Database::named(server());
        let mut conn = PgConnection::connect(&database.server).await.unwrap();
        run(&mut conn, format!("create database {}", database.name)).await;
        database
    }

    fn named(server: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Database { server, name }
    }

    pub fn url(&self) -> String {
        on(&self.server, &self.name)
    }

    pub async fn open(&self) -> PgStore {
        PgStore::open(PgOptions::new(self.url())).await.unwrap()
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, sql) = (self.server.clone(), format!("drop database if exists {} with (force)", self.name));
        // A thread of its own: a test's runtime cannot wait here.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                if let Ok(mut conn) = PgConnection::connect(&server).await {
                    sqlx::query(AssertSqlSafe(sql)).persistent(false).execute(&mut conn).await.ok();
                }
            });
        });
        dropping.join().ok();
    }
}
