//! What a start refuses and `doctor` finds: servers that would break a promise.

use std::path::{Path, PathBuf};

use sqlx::Row;

use super::{Database, Member, Output, PATIENCE, Proxy, RedisServer, text, tidegate, until};

fn write(folder: &Path, database: &str, redis: &str) -> PathBuf {
    let file = folder.join("tidegate.toml");
    std::fs::write(&file, text("d1", database, redis, "http://127.0.0.1:9")).unwrap();
    file
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Level and text of what the doctor found under this name.
fn found(out: &Output, check: &str, about: &str) -> (String, String) {
    let all: Vec<serde_json::Value> = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    let text = |f: &serde_json::Value, key: &str| f[key].as_str().unwrap_or_default().to_owned();
    let one = all.iter().find(|f| f["check"] == check && text(f, "found").contains(about));
    one.map_or_else(|| panic!("{check} {about} is not in {all:#?}"), |f| (text(f, "level"), text(f, "found")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_evicts_is_refused_at_the_start_and_found_by_the_doctor() {
    let (folder, database) = (tempfile::tempdir().unwrap(), Database::new().await);
    let redis = RedisServer::with(&["--maxmemory-policy", "allkeys-lru", "--maxmemory", "100mb"]).await;
    let file = write(folder.path(), &database.url(), &redis.url());
    let file = file.to_str().unwrap();
    let out = tidegate(&["serve", "--config", file]);
    let text = said(&out);
    assert_eq!(out.status.code(), Some(78), "{text}");
    assert!(
        text.contains("maxmemory-policy: allkeys-lru") && text.contains("set maxmemory-policy noeviction"),
        "{text}"
    );
    let out = tidegate(&["--addr", "127.0.0.1:1", "doctor", "--config", file, "-o", "json"]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert_eq!(found(&out, "limiter", "maxmemory-policy").0, "fail");
    let (level, text) = found(&out, "limiter", "appendonly");
    assert!(level == "warn" && text.contains("set appendonly yes"), "{level} {text}");
    let (level, text) = found(&out, "store", "postgres");
    assert!(level == "ok" && text.contains("synchronous_commit=on"), "{level} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_set_to_evict_later_holds_the_jobs_from_the_next_connection_on() {
    let (folder, database, redis) = (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
    let way = Proxy::to(redis.port).await;
    let d1 = Member::start(folder.path(), "d1", &database.url(), &way.url(), "http://127.0.0.1:9").await;
    d1.readyz(200, "ready").await;
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    way.cut();
    d1.readyz(200, "held: the shared limits cannot be trusted: Redis maxmemory-policy: allkeys-lru").await;
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let calm = until(PATIENCE, || async { (d1.page("/readyz").await.1 == "ready\n").then_some(()) }).await;
    assert!(calm.is_some(), "{:?}", d1.page("/readyz").await);
    d1.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_is_content_with_good_servers_and_names_the_one_that_is_away() {
    let (folder, database, mut redis) =
        (tempfile::tempdir().unwrap(), Database::new().await, RedisServer::start().await);
    let file = write(folder.path(), &database.url(), &redis.url());
    let doctor = || tidegate(&["--addr", "127.0.0.1:1", "doctor", "--config", file.to_str().unwrap(), "-o", "json"]);
    let out = doctor();
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));
    for about in ["maxmemory-policy: noeviction", "appendonly: yes", "version: ", "clock: its clock"] {
        assert_eq!(found(&out, "limiter", about).0, "ok");
    }
    redis.kill();
    let out = doctor();
    assert_eq!((out.status.code(), found(&out, "limiter", "not connected").0.as_str()), (Some(1), "fail"));
    let nowhere = database.url().replace(&database.name, "no_such_database");
    std::fs::write(&file, text("d1", &nowhere, &redis.url(), "http://127.0.0.1:9")).unwrap();
    assert!(found(&doctor(), "store", "no_such_database").0 == "fail");
    let out = tidegate(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(78), "starting again does not make a database: {}", said(&out));
}

/// Tables, and the newest schema on record.
async fn schema(database: &Database) -> (i64, Option<i64>) {
    let mut conn = database.connect().await;
    let tables = "select count(*) from pg_tables where schemaname = 'public'";
    let tables: i64 = sqlx::query(tables).fetch_one(&mut conn).await.unwrap().get(0);
    let newest = sqlx::query("select max(version) from _sqlx_migrations").fetch_one(&mut conn).await;
    (tables, newest.ok().and_then(|row| row.get(0)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_looks_at_a_database_and_leaves_its_schema_as_it_is() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), RedisServer::start().await);
    let check = |database: &Database| {
        let file = write(folder.path(), &database.url(), &redis.url());
        let out = tidegate(&["--addr", "127.0.0.1:1", "doctor", "--config", file.to_str().unwrap(), "-o", "json"]);
        found(&out, "store", "")
    };
    let bare = Database::bare().await;
    let (level, text) = check(&bare);
    assert!(level == "ok" && text.contains("no schema yet"), "{level} {text}");
    assert_eq!(schema(&bare).await, (0, None), "nothing was made");

    let older = Database::new().await;
    let (tables, newest) = schema(&older).await;
    let newest = newest.unwrap();
    let set_back = "delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)";
    sqlx::query(set_back).execute(&mut older.connect().await).await.unwrap();
    let before = schema(&older).await;
    assert!(before.0 == tables && before.1 < Some(newest));
    let (level, text) = check(&older);
    let says = format!("schema {}, a start of this version brings it to {newest}", before.1.unwrap());
    assert!(level == "ok" && text.contains(&says), "{level} {text}");
    assert_eq!(schema(&older).await, before);

    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                 values (999, 'later', true, '\\x00', 1)";
    sqlx::query(newer).execute(&mut older.connect().await).await.unwrap();
    let (level, text) = check(&older);
    assert!(level == "fail" && text.contains("got 999") && text.contains("newer"), "{level} {text}");
}
