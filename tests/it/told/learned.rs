//! A number that nobody publishes, learned by daemons that share PostgreSQL and Redis: what a refusal teaches one of them
//! all go by.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_refusal_teaches_one_daemon_all_go_by() {
    let own = 12;
    let shape =
        Shape { max: own, more: ", learned = true", headers: HeaderStyle::RetryAfter, in_flight: 2, ..Shape::TOLD };
    let fleet = Fleet::start(shape).await;
    // 40, 28, 19, 13, 9: four steps, each of what is on the wire at most.
    let shown = until(2 * PATIENCE, || async {
        let mut shown = Vec::new();
        for daemon in &fleet.daemons {
            let limit = status(daemon).await?.limits.into_iter().find(|l| l.name == "core")?;
            shown.push((limit.max, limit.refused_at_max?));
        }
        let found = shown.iter().all(|(max, _)| (7..=i64::from(own)).contains(max));
        (found && shown.iter().all(|(_, at)| *at == shown[0].1)).then_some(shown)
    });
    let shown = shown.await.expect("both daemons have found the number, by one refusal");
    let finding = fleet.refused();
    let from = fleet.in_a_new_window(1).await;
    let last = loop {
        let window = fleet.in_a_new_window(1).await;
        if window >= from + 5 {
            break window;
        }
    };
    let used = fleet.per_window(from, last - from);
    let later = fleet.refused() - finding;
    eprintln!(
        "12 per 4 s, declared as 40: {shown:?} after {finding} refusals, then {used:?} per window, {later} refused"
    );
    assert!(finding <= 6 * (DAEMONS * 2 + 1) as u64, "{finding} refusals to find it");
    assert!(later <= DAEMONS as u64 * 2, "{later} refusals in five windows after it was found");
    assert!(used.iter().sum::<usize>() * 2 >= used.len() * own as usize, "it is used: {used:?}");
    fleet.stop().await;
}
