//! Keeping sealed tokens: one holder at a time, saves by version, the same in every store.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;
use tidegate::model::name::{Account, ProviderName};
use tidegate::store::memory::MemoryStore;
use tidegate::store::tokens::{StoredToken, TokenKey, TokenLease, Tokens};

use super::factory::{START, open};
use crate::support::servers::Database;

const LEASE: Duration = Duration::from_millis(300);

fn key(account: &str) -> TokenKey {
    TokenKey { provider: ProviderName::new("crm").unwrap(), account: Account::new(account).unwrap() }
}

fn token(version: i64) -> StoredToken {
    StoredToken { version, sealed: vec![0, 255, version as u8] }
}

async fn holds_its_promises(store: Arc<dyn Tokens>) {
    let key = key("acct-7");
    let lease =
        async |holder: &str, after: Duration| store.lease_token(&key, holder, START + after, LEASE).await.unwrap();
    assert_eq!(lease("a", Duration::ZERO).await, TokenLease::Ours(None));
    assert_eq!(lease("b", Duration::ZERO).await, TokenLease::Taken);
    assert_eq!(lease("a", Duration::ZERO).await, TokenLease::Ours(None), "its holder may ask again");
    assert!(store.save_token(&key, "a", 0, &token(1)).await.unwrap());
    // The save ended the lease.
    assert_eq!(lease("b", Duration::ZERO).await, TokenLease::Ours(Some(token(1))));
    store.release_token(&key, "a").await.unwrap();
    assert_eq!(lease("a", Duration::ZERO).await, TokenLease::Taken, "only its holder ends a lease");
    store.release_token(&key, "b").await.unwrap();
    assert_eq!(lease("a", Duration::ZERO).await, TokenLease::Ours(Some(token(1))));
    // A lease ends by itself, by the store's clock or by ours.
    tokio::time::sleep(LEASE + Duration::from_millis(50)).await;
    assert_eq!(lease("b", LEASE * 2).await, TokenLease::Ours(Some(token(1))));
    assert!(store.save_token(&key, "b", 1, &token(2)).await.unwrap());
    // Who slept through its lease replaces nothing that is newer.
    assert!(!store.save_token(&key, "a", 1, &token(9)).await.unwrap());
    assert_eq!(lease("c", LEASE * 2).await, TokenLease::Ours(Some(token(2))));
    // But a token that was given out is kept although another one holds the lease by now, whose lease stays.
    assert!(store.save_token(&key, "b", 2, &token(3)).await.unwrap());
    assert_eq!(lease("a", LEASE * 2).await, TokenLease::Taken);
    let other = TokenKey { account: Account::default(), ..key.clone() };
    assert_eq!(store.lease_token(&other, "a", START, LEASE).await.unwrap(), TokenLease::Ours(None));
}

#[tokio::test]
async fn memory_keeps_tokens() {
    holds_its_promises(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn sqlite_keeps_tokens_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(folder.path()).await.unwrap());
    holds_its_promises(store.clone()).await;
    tidegate::store::Store::close(&*store).await;
    drop(store);
    let again = open(folder.path()).await.unwrap();
    let lease = again.lease_token(&key("acct-7"), "a", START + LEASE * 9, LEASE).await.unwrap();
    assert_eq!(lease, TokenLease::Ours(Some(token(3))));
}

#[tokio::test]
async fn postgres_keeps_tokens() {
    let database = Database::new().await;
    holds_its_promises(Arc::new(database.open().await)).await;
}

#[tokio::test]
async fn of_many_daemons_one_gets_the_lease() {
    let database = Database::new().await;
    let stores = futures_util::future::join_all((0..3).map(|_| database.open())).await;
    let key = key("");
    let asks = (0..30).map(|n| {
        let (store, key) = (&stores[n % 3], &key);
        async move { store.lease_token(key, &format!("d{n}"), START, Duration::from_secs(60)).await.unwrap() }
    });
    let answers = futures_util::future::join_all(asks).await;
    assert_eq!(answers.iter().filter(|a| **a != TokenLease::Taken).count(), 1);
}

/// As it is for whoever ran a version between: the later schemas are there, this one comes after them.
const NOT_YET: [&str; 2] = ["drop table token", "delete from _sqlx_migrations where version = 6"];

#[tokio::test]
async fn sqlite_takes_the_table_of_tokens_after_later_schemas() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await.unwrap();
    tidegate::store::Store::close(&store).await;
    drop(store);
    let path = folder.path().join("tidegate.db");
    let mut db = sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    for statement in NOT_YET {
        sqlx::query(statement).execute(&mut db).await.unwrap();
    }
    let later = sqlx::query_scalar::<_, i64>("select max(version) from _sqlx_migrations");
    assert!(later.fetch_one(&mut db).await.unwrap() > 6);
    db.close().await.unwrap();
    holds_its_promises(Arc::new(open(folder.path()).await.unwrap())).await;
}

#[tokio::test]
async fn postgres_takes_the_table_of_tokens_after_later_schemas() {
    let database = Database::new().await;
    tidegate::store::Store::close(&database.open().await).await;
    let mut db = database.connect().await;
    for statement in NOT_YET {
        sqlx::query(statement).execute(&mut db).await.unwrap();
    }
    let later = sqlx::query_scalar::<_, i64>("select max(version) from _sqlx_migrations");
    assert!(later.fetch_one(&mut db).await.unwrap() > 6);
    holds_its_promises(Arc::new(database.open().await)).await;
}
