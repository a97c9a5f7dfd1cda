//! Ways to say who calls, as they look on the wire to a provider that checks them: a name with a password, and a client that
//! stands for nobody but itself.

use super::*;

/// Of RFC 7617, section 2: the user-id "Aladdin" with the password "open sesame".
const ALADDIN: &str = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";

#[tokio::test(flavor = "multi_thread")]
async fn a_name_and_a_password_are_shown_as_basic_says() {
    let folder = tempfile::tempdir().unwrap();
    let rules = TokenRules { keys: vec![ALADDIN.to_owned()], ..TokenRules::default() };
    let provider = provider(rules, Duration::from_millis(5)).await;
    let basic = |name: &str, password: &str| {
        let file = secret(folder.path(), name, password);
        format!("{{ basic = {{ username = \"Aladdin\", password = {{ file = {file:?} }} }} }}")
    };
    let more = format!(
        "auth = {}\naccounts = {{ thief = {{ auth = {} }} }}",
        basic("good", "open sesame"),
        basic("guessed", "open rye")
    );
    let daemon = Place::new(folder.path(), folder.path(), &declaration(&provider, &more)).start().await;
    enqueue(&daemon, &["a"], 10).await;
    delivered(&daemon, 10).await;
    let report = provider.report();
    assert_eq!((report.arrivals, report.tokens.refused_calls, report.tokens.asked), (10, 0, 0), "{:?}", report.tokens);
    // The provider does look at the password.
    let call = pb::CallRequest {
        provider: "crm".to_owned(),
        operation: "sync".to_owned(),
        account: "thief".to_owned(),
        payload: "{}".to_owned(),
        ..Default::default()
    };
    let refused = CallServiceClient::new(daemon.channel()).call(call).await.unwrap().into_inner();
    assert_eq!(refused.status, 401, "{refused:?}");
    assert!(daemon.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_credentials_are_exchanged_for_one_token_after_the_other() {
    for style in ["basic", "body"] {
        let folder = tempfile::tempdir().unwrap();
        // No refresh token is good here. The secret has to be encoded both in a form and in front of base64.
        let rules = TokenRules {
            client_secret: "s3cret:/&+".to_owned(),
            refresh_token: String::new(),
            ..TokenRules::default()
        };
        let provider = provider(rules.clone(), Duration::from_millis(5)).await;
        let client = secret(folder.path(), "client", &rules.client_secret);
        let auth = format!(
            "auth = {{ oauth2 = {{ token_url = \"{}/oauth/token\", grant = \"client_credentials\", client_id = \"tidegate\", \
             client_secret = {{ file = {client:?} }}, style = \"{style}\" }} }}",
            provider.base_url()
        );
        let text = format!("{}{}", seal_key(folder.path()), declaration(&provider, &auth));
        let place = Place::new(folder.path(), folder.path(), &text);
        let daemon = place.start().await;
        enqueue(&daemon, &["a"], 20).await;
        delivered(&daemon, 20).await;
        let first = provider.report().tokens;
        assert_eq!((first.asked, first.given, first.refused_calls), (1, 1, 0), "{style}: {first:?}");
        age().await;
        provider.revoke_tokens();
        enqueue(&daemon, &["a"], 20).await;
        delivered(&daemon, 40).await;
        let second = provider.report().tokens;
        assert_eq!((second.asked, second.given), (2, 2), "{style}: {second:?}");
        assert!(daemon.stop().await);
        // The token is in the store, sealed: a restart asks for none.
        let daemon = place.start().await;
        enqueue(&daemon, &["a"], 5).await;
        delivered(&daemon, 45).await;
        assert_eq!(provider.report().tokens, second, "{style}");
        assert!(daemon.stop().await);
    }
}
