//! The conformance suite of `tidegate::store::Store`: every store passes the same tests.

mod factory;

/// Runs each test against every store.
macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::store::factory::memory()).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::store::factory::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::store::factory::postgres().await).await;
            })*
        }
    };
}

mod alerts;
mod call_log;
mod calls;
mod cluster;
mod filters;
mod intake;
mod keys;
mod model;
mod notices;
mod outside;
mod postgres;
mod providers;
mod records;
mod retention;
mod runs;
mod runs_before;
mod schedules;
mod silence;
mod sqlite;
mod states;
mod tokens;
mod webhooks;
