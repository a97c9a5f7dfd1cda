//! A steady rate that nothing holds up: every call has its moment, whether those before it have come back or not.
//!
//! A call's time counts from that moment. Counted from the send, a stall would hide the wait of all the calls that it kept
//! from being sent ("coordinated omission"). Must never know: what is called. Next: `call`.

use std::future::Future;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::exit::Error;
use crate::clock::Clock;

/// From the first look at the clock to the first call, for the thread that keeps the pace to be there.
const LEAD: Duration = Duration::from_millis(50);
/// The first so many seconds are not counted: connections, caches and the allocator are cold once in a daemon's life.
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Paced {
    /// From the moment that a call was due to its answer.
    pub times: Vec<Duration>,
    /// How late this program itself was with each: a part of the above that is none of the daemon's.
    pub late: Vec<Duration>,
    /// From the first moment to the last answer.
    pub took: Duration,
}

/// Calls `call` with 0, 1, 2 and so on, `per_second` times a second for `length`. The first error ends it.
pub async fn keep<F, Answer>(clock: &Clock, per_second: u64, length: Duration, call: F) -> Result<Paced, Error>
where
    F: Fn(u64) -> Answer,
    Answer: Future<Output = Result<(), Error>> + Send + 'static,
{
    let begin = clock.steady() + LEAD;
    let started = begin + WARM_UP;
    let total = (per_second as f64 * (WARM_UP + length).as_secs_f64()) as u64;
    // As many as there are to be sent: the thread never waits for this task.
    let (tell, mut told) = mpsc::channel(total.max(1) as usize);
    // A thread of its own, because the runtime's timers wake to the millisecond and a call is due every fifth of one.
    let pacer = tokio::task::spawn_blocking({
        let clock = clock.clone();
        move || {
            for n in 0..total {
                let due = begin + Duration::from_secs_f64(n as f64 / per_second as f64);
                clock.block_until(due);
                if tell.blocking_send((n, due)).is_err() {
                    return;
                }
            }
        }
    });
    let mut calls = JoinSet::new();
    while let Some((n, due)) = told.recv().await {
        let (answer, clock) = (call(n), clock.clone());
        calls.spawn(async move {
            let late = clock.steady().since(due);
            answer.await?;
            Ok::<_, Error>((due, late, clock.steady().since(due)))
        });
    }
    let mut paced = Paced::default();
    while let Some(done) = calls.join_next().await {
        let (due, late, time) = done.map_err(|e| Error::failed(e.to_string()))??;
        if due >= started {
            paced.late.push(late);
            paced.times.push(time);
            paced.took = paced.took.max((due + time).since(started));
        }
    }
    pacer.await.map_err(|e| Error::failed(e.to_string()))?;
    Ok(paced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_stalls_is_charged_for_all_that_were_due_meanwhile() {
        let clock = Clock::system();
        let stall = Duration::from_millis(400);
        // The runtime of this test has one thread: a call that blocks it keeps the others from being sent.
        let paced = keep(&clock, 100, Duration::from_secs(1), |n| {
            let clock = clock.clone();
            async move {
                if n == 120 {
                    clock.block_until(clock.steady() + stall);
                }
                Ok(())
            }
        });
        let paced = paced.await.unwrap();
        assert_eq!((paced.times.len(), paced.late.len()), (100, 100));
        // Due every 10 ms: of the 40 that were kept waiting, 29 waited for more than a quarter of the stall.
        let waited = paced.times.iter().filter(|time| **time > stall / 4).count();
        assert!(waited >= 25, "{waited} of the calls that were due while one stalled waited");
    }
}
