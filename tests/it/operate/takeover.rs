//! A daemon that is killed is replaced, and one that joins or leaves takes nobody's turn away: judged by the longest time
//! in which an account with work had no arrival at the provider.

use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::engine::cluster::members::LEASE;

use super::stage::Stage;

/// For the partitions of a daemon that was killed.
const TAKEN_OVER_MAX: Duration = Duration::from_secs(15);
/// While a daemon joins, or leaves politely.
const HANDED_OVER_MAX: Duration = Duration::from_secs(1);
/// Between two steps, so that each is seen by itself.
const CALM: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_are_replaced_and_who_joins_or_leaves_pauses_nobody() {
    let (stage, clock) = (Stage::paced(45).await, Clock::system());
    let mut daemons = Vec::new();
    for place in &stage.places {
        daemons.push(place.start().await);
    }
    stage.enqueue(&daemons[0]).await;
    tokio::time::sleep(CALM).await;
    let killed_at = daemons.pop().expect("there are three").kill(&clock).await;
    // Until the others have taken over; what had to wait for that shows its pause.
    tokio::time::sleep(LEASE + CALM).await;
    let joining_at = stage.now();
    daemons.push(stage.places[2].start().await);
    tokio::time::sleep(CALM).await;
    let leaving_at = stage.now();
    assert!(daemons.remove(0).stop().await, "expected a clean end:\n{}", stage.places[0].log_tail());
    tokio::time::sleep(CALM).await;
    let to = stage.now();
    let seen = stage.end(daemons).await;
    let taken_over = seen.longest_pause(killed_at, to);
    let joined = seen.longest_pause(joining_at, leaving_at);
    let left = seen.longest_pause(leaving_at, to);
    eprintln!(
        "longest pauses of an account with work: {taken_over:?} after a death, {joined:?} when one joined, {left:?} when one left"
    );
    seen.is_in_order();
    assert!(taken_over < TAKEN_OVER_MAX, "{taken_over:?} after a death");
    assert!(joined < HANDED_OVER_MAX, "{joined:?} when a daemon joined");
    assert!(left < HANDED_OVER_MAX, "{left:?} when a daemon left");
}
