//! A token that is refused although it was just fetched: one refresh, one repeat, then the breaker, until it is mended.

use super::*;

const IN_FLIGHT: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_401_that_outlives_its_refresh_opens_the_breaker_at_once() {
    let (folder, rules) = (tempfile::tempdir().unwrap(), TokenRules::default());
    let provider = provider(rules.clone(), Duration::from_millis(50)).await;
    let auth = oauth2(&provider, folder.path(), &rules);
    let text = declaration(&provider, &format!("auth = {auth}\nbreaker = {{ open_base = \"4s\", open_max = \"8s\" }}"));
    let text = text.replace("in_flight_max = 256", &format!("in_flight_max = {IN_FLIGHT}"));
    let text = text.replace("attempts = 3", "attempts = 20");
    let daemon = Place::new(folder.path(), folder.path(), &text).start().await;
    enqueue(&daemon, &["a"], 5).await;
    delivered(&daemon, 5).await;
    age().await;
    provider.set_token_fault(TokenFault::Useless);
    provider.revoke_tokens();
    let before = provider.report().tokens;
    let jobs = enqueue(&daemon, &["a"], 100).await;
    let says = until(PATIENCE, async || {
        let all = futures_util::future::join_all(jobs.iter().map(|job| explain(&daemon, job))).await;
        let breaker = |said: &pb::ExplainJobResponse| {
            said.waiting_on.as_ref().is_some_and(|on| on.kind() == pb::waiting_on::Kind::Breaker)
        };
        all.into_iter().find(|(said, sentence)| breaker(said) && sentence.contains("had just been fetched"))
    });
    let Some((_, sentence)) = says.await else { panic!("no job says why: {:?}", status(&daemon).await) };
    assert!(sentence.contains("mend the credential"), "{sentence}");
    // Long before the first probe.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = provider.report().tokens;
    let refused = (after.refused_calls - before.refused_calls) as usize;
    eprintln!("a token that is refused again: {refused} calls with {IN_FLIGHT} in flight, {before:?} {after:?}");
    assert_eq!(after.asked - before.asked, 1, "one refresh");
    // What was on the wire under the old token, and what left under the new one before its first answer.
    assert!((2..=2 * IN_FLIGHT).contains(&refused), "{refused} calls were refused");
    // A probe fetches a token of its own and goes alone.
    let probed = until(PATIENCE, async || (provider.report().tokens.asked > after.asked).then_some(())).await;
    assert!(probed.is_some(), "a probe leaves when the breaker's time is up");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let probe = provider.report().tokens;
    assert_eq!((probe.asked - after.asked, probe.refused_calls - after.refused_calls), (1, 1), "{probe:?}");
    provider.set_token_fault(TokenFault::None);
    delivered(&daemon, 105).await;
    let mended = provider.report().tokens;
    assert_eq!(mended.refused_calls, probe.refused_calls, "the next probe succeeds, and the others follow");
    assert!(daemon.stop().await);
}
