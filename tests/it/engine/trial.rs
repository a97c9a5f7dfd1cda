//! A test of a provider is a call like any other: journaled, counted over kills, and heard when it is refused.

use std::time::Duration;

use tidegate::engine::EngineError;
use tidegate::engine::status::TestReport;
use tidegate::model::call::Ending;
use tidegate::model::id::CallId;
use tidegate::model::name::ProviderName;
use tidegate::model::state::State;
use tidegate::store::Store;

use super::stand::{Arrival, Reply, START, Stand, job};

const DELAY: Duration = Duration::from_millis(40);

fn declaration(limit: &str) -> String {
    format!(
        "timeouts = {{ total = \"60s\" }}\nlimits = [{{ name = \"core\", {limit} }}]\n\
         [providers.crm.operations.op]\nrequest = \"PUT /x/{{key}}\"\n"
    )
}

async fn test(stand: &Stand) -> Result<TestReport, EngineError> {
    stand.engine.test_provider(&ProviderName::new("crm").unwrap(), "/look?at=1").await
}

fn has_no_room(tested: &Result<TestReport, EngineError>) -> bool {
    matches!(tested, Err(EngineError::Unavailable(why)) if why.contains("has no room"))
}

#[tokio::test(start_paused = true)]
async fn a_test_is_in_the_journal_and_still_counts_after_a_kill() {
    let mut stand = Stand::new(&declaration("max = 1, per = \"1h\""), DELAY).await;
    let report = test(&stand).await.unwrap();
    assert_eq!((report.status, report.took), (Some(200), DELAY * 2));
    assert_eq!(stand.arrivals()[0].line, "GET /look");
    let call = stand.store.call(CallId(1)).await.unwrap().expect("it is in the journal");
    assert_eq!((call.operation.as_str(), call.ending, call.status), ("test", Ending::Answered, Some(200)));
    stand.restart(Duration::from_secs(1)).await;
    let again = test(&stand).await;
    assert!(has_no_room(&again), "{again:?}");
    assert_eq!(stand.arrivals().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_test_that_a_kill_cut_off_counts_from_when_it_can_have_arrived() {
    let mut stand = Stand::new(&declaration("max = 1, per = \"10s\""), Duration::from_secs(5)).await;
    let engine = stand.engine.clone();
    let cut = tokio::spawn(async move { engine.test_provider(&ProviderName::new("crm").unwrap(), "/").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The second life judges it; the third one knows only what that wrote.
    stand.restart(Duration::from_secs(1)).await;
    stand.restart(Duration::from_secs(1)).await;
    assert!(cut.await.unwrap().is_err());
    tokio::time::sleep(Duration::from_secs(15)).await;
    let early = test(&stand).await;
    assert!(has_no_room(&early), "it may have arrived 60 s after its start: {early:?}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(test(&stand).await.unwrap().status, Some(200));
}

#[tokio::test(start_paused = true)]
async fn a_test_that_is_refused_holds_everybody() {
    let stand = Stand::new(&declaration("max = 10, per = \"1h\""), DELAY).await;
    let until = START + Duration::from_secs(60);
    stand.replies(move |arrival: &Arrival| match arrival.at < until {
        true => Reply::Said(429, vec![("retry-after", "60".to_owned())]),
        false => Reply::Status(200),
    });
    let report = test(&stand).await.unwrap();
    assert_eq!(report.status, Some(429));
    assert_eq!(report.limit_headers, [("retry-after".to_owned(), "60".to_owned())]);
    let ids = stand.enqueue(vec![job("a")]).await;
    let again = test(&stand).await;
    assert!(has_no_room(&again), "{again:?}");
    assert_eq!(stand.settled(&ids, Duration::from_secs(200)).await, [State::Delivered]);
    assert_eq!(stand.arrivals().len(), 2, "nothing is sent in vain");
}
