//! Connections: each is lent for one operation, and comes back only if the operation came to its end in time.
//!
//! The driver waits for an answer for as long as the kernel keeps the connection, which after a silent cut is a quarter of an
//! hour. So every operation has a bound, and one that passes it, or is dropped on the way, takes its connection along:
//! nobody knows what that would still say. A pool of our own, because the driver's asks a connection that comes back
//! whether it is well: one more way to the server per operation, without a bound. Must never know: what is asked.
//! Next: `commit`.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::arrays::Query;
use super::error;

/// How long to wait for a connection: for a free one, or for the server to take a new one.
pub(super) const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// A goodbye to the server may take this long.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Lender {
    connect: PgConnectOptions,
    /// Those that nobody uses, the youngest last.
    idle: Mutex<Vec<PgConnection>>,
    room: Semaphore,
    /// An operation that takes longer is given up.
    pub answer_max: Duration,
}

/// A connection for one operation.
#[derive(Debug)]
pub(super) struct Lent<'a> {
    lender: &'a Lender,
    conn: PgConnection,
    _room: SemaphorePermit<'a>,
}

/// Bounds a wait for the server. What is over it counts as a lost connection.
pub(super) async fn within<T>(
    most: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(most, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(silence(most)),
    }
}

pub(super) fn silence(most: Duration) -> sqlx::Error {
    let said = format!("expected an answer of PostgreSQL within {most:?}, got none; the connection is given up");
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, said))
}

impl Lender {
    pub(super) fn new(connect: PgConnectOptions, connections_max: u32, answer_max: Duration) -> Self {
        let room = Semaphore::new(connections_max.max(1) as usize);
        Lender { connect, idle: Mutex::default(), room, answer_max }
    }

    pub(super) async fn lend(&self) -> Result<Lent<'_>, sqlx::Error> {
        let lent = async {
            let room = self.room.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let idle = self.idle().pop();
            let conn = match idle {
                Some(conn) => conn,
                None => self.connect.connect().await?,
            };
            Ok(Lent { lender: self, conn, _room: room })
        };
        tokio::time::timeout(CONNECT_WAIT, lent).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Asks one statement.
    pub(super) async fn ask(&self, query: Query<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut lent = self.lend().await?;
        let answer = within(self.answer_max, query.fetch_all(&mut lent.conn)).await;
        lent.judge(answer)
    }

    /// Asks one statement that answers with one row.
    pub(super) async fn ask_one(&self, query: Query<'_>) -> Result<PgRow, sqlx::Error> {
        self.ask(query).await?.pop().ok_or(sqlx::Error::RowNotFound)
    }

    /// Throws away those that nobody uses: what ended one of them may have ended all.
    pub(super) fn forget(&self) {
        self.idle().clear();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    /// Nothing is lent from now on.
    pub(super) async fn close(&self) {
        self.room.close();
        let idle = std::mem::take(&mut *self.idle());
        for conn in idle {
            // Best effort: the server notices in any case.
            tokio::time::timeout(CLOSE_WAIT, conn.close()).await.ok();
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().expect("nothing panics while it holds the connections")
    }
}

impl Lent<'_> {
    pub(super) fn conn(&mut self) -> &mut PgConnection {
        &mut self.conn
    }

    /// Gives the connection back where the server answered, be it with a refusal, and throws it away where it did not.
    pub(super) fn judge<T>(self, answer: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        match &answer {
            // A restart of the server ends all of them.
            Err(e) if error::is_disconnect(e) => self.lender.forget(),
            _ => self.give_back(),
        }
        answer
    }

    /// For the next operation. The connection is between two transactions.
    pub(super) fn give_back(self) {
        let Lent { lender, conn, .. } = self;
        if !lender.is_closed() {
            lender.idle().push(conn);
        }
    }
}
