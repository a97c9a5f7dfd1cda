//! The alert of a quota listens to what the provider says is left, beside our own count.

use std::time::Duration;

use tidegate::model::alert::{Rule, Watch};
use tidegate::model::name::{AlertName, LimitName, ProviderName};
use tidegate::model::state::State;
use tidegate::store::Store;

use super::stand::{Reply, START, Stand, job};

#[tokio::test(start_paused = true)]
async fn a_quota_that_a_stranger_has_used_up_is_told_and_over_with_the_reset() {
    let declared = "limits = [{ name = \"core\", max = 100, per = \"1h\", headers = \"x-ratelimit\" }]\n\
                    [providers.crm.operations.op]\nrequest = \"PUT /x/{key}\"\n";
    let stand = Stand::new(declared, Duration::from_millis(40)).await;
    let reset = (START + Duration::from_secs(1_800)).0 / 1_000_000;
    stand.replies(move |_| {
        let said = [("x-ratelimit-remaining", "3".to_owned()), ("x-ratelimit-reset", reset.to_string())];
        Reply::Said(200, said.to_vec())
    });
    stand.engine.alerts().replace(vec![Rule {
        name: AlertName::new("quota").unwrap(),
        provider: ProviderName::new("crm").unwrap(),
        watch: Watch::Quota { limit: LimitName::new("core").unwrap(), left_below: 0.1 },
        hold: Duration::ZERO,
        repeat: None,
    }]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(stand.store.alerts().await.unwrap(), []);
    let ids = stand.enqueue(vec![job("a")]).await;
    assert_eq!(stand.settled(&ids, Duration::from_secs(10)).await, [State::Delivered]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let raised = stand.store.alerts().await.unwrap();
    assert_eq!(raised.iter().map(|r| r.detail.as_str()).collect::<Vec<_>>(), ["3 of 100 are left of core"]);
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    assert_eq!(stand.store.alerts().await.unwrap(), [], "99 are left by our own count");
}
