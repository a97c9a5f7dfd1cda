//! Configurations good and bad, and what is said about them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::provider::{parse, source_of};
use super::*;
use crate::model::provider::*;

mod external;

/// The manual's example with the leading `#` taken away.
fn example() -> String {
    let setting = |l: &&str| l.starts_with('#') && !l.starts_with("# ") && l.len() > 1 && !l.starts_with("##");
    let providers = &DEFAULT_TOML[DEFAULT_TOML.find("#[providers.crm]").expect("there is an example")..];
    let providers = &providers[..providers.find("#[collections.orders]").expect("collections come next")];
    providers.lines().filter(setting).map(|l| format!("{}\n", &l[1..])).collect()
}

fn one(text: &str) -> Provider {
    parse(text, "test.toml").unwrap_or_else(|p| panic!("{p}")).remove(0)
}

fn refused(text: &str) -> String {
    parse(text, "test.toml").map(|p| format!("{p:?}")).expect_err("this is no good configuration").to_string()
}

/// A provider that is fine but for `lines`.
fn with(lines: &str) -> String {
    format!("[providers.crm]\nbase_url = \"https://crm.example\"\n{lines}\n")
}

fn operation(lines: &str) -> String {
    with(&format!("[providers.crm.operations.op]\n{lines}"))
}

#[test]
fn the_manuals_example_is_a_good_provider() {
    let crm = one(&example());
    assert_eq!(crm.name.as_str(), "crm");
    assert_eq!(crm.limits.len(), 7);
    assert_eq!(crm.limits[1].reserve, Reserve { urgent: 5, normal: 10 });
    assert_eq!(crm.limits[1].methods.len(), 6);
    assert_eq!(crm.tenants.iter().map(|(t, w)| (t.as_str(), *w)).collect::<Vec<_>>(), [("big", 3)]);
    assert_eq!(crm.timeouts, Timeouts::default());
    assert_eq!(crm.breaker, BreakerPolicy::default());
    let op = crm.operations.values().find(|op| op.name.as_str() == "sync_user").unwrap();
    let batch = op.batch.as_ref().unwrap();
    assert_eq!((batch.size_max, batch.bytes_max, &batch.method), (1_000, 4 << 20, &http::Method::POST));
    assert_eq!(batch.limits[0].name.as_str(), "sync_user-batch");
    assert_eq!(op.retry.attempts_max, 6);
    assert_eq!(op.single.as_ref().unwrap().request.query.len(), 2);
}

#[test]
fn a_credential_is_shown_in_one_of_five_ways_and_an_account_may_have_its_own() {
    let auth = |auth: &str| {
        one(&operation("request = \"GET /\"").replace("base_url", &format!("auth = {auth}\nbase_url"))).auth
    };
    let query = auth("{ query = { name = \"api_key\", value = { env = \"X\" } } }");
    assert_eq!(query, Auth::Query { name: "api_key".into(), value: SecretRef::Env("X".into()) });
    let minimal = "grant = \"client_credentials\", client_id = \"me\", client_secret = { env = \"X\" }";
    let Auth::OAuth2(client) = auth(&format!("{{ oauth2 = {{ token_url = \"https://l.example/t\", {minimal} }} }}"))
    else {
        panic!("expected oauth2");
    };
    assert_eq!((&client.grant, client.style, &client.scope), (&Grant::ClientCredentials, ClientStyle::Basic, &None));
    let two = one(&with(
        "auth = { bearer = { credential = \"crm_{account}\" } }\n\
         accounts = { \"acct-7\" = { auth = { header = { name = \"X-Key\", value = { env = \"X\" } } } } }\n\
         [providers.crm.operations.op]\nrequest = \"GET /\"",
    ));
    let account = |name: &str| crate::model::name::Account::new(name).unwrap();
    assert!(matches!(two.auth_of(&account("acct-7")).unwrap(), Auth::Header { .. }));
    assert_eq!(two.auth_of(&account("a")).unwrap(), Auth::Bearer(SecretRef::Credential("crm_a".into())));
    assert_eq!(two.credential_of(&account("a")), account("a"));
}

#[test]
fn credentials_that_cannot_work_are_refused_with_what_to_do() {
    let oauth2 = |lines: &str| refused(&with(&format!("auth = {{ oauth2 = {{ {lines} }} }}")));
    let url = "token_url = \"https://l.example/t\", client_id = \"me\"";
    for (lines, said) in [
        ("grant = \"client_credentials\", client_id = \"me\"", "expected the key `token_url` here"),
        (&*format!("{url}, grant = \"password\""), "\"client_credentials\", \"refresh_token\""),
        (&format!("{url}, grant = \"client_credentials\""), "expected the key `client_secret` here"),
        (&format!("{url}, grant = \"refresh_token\""), "expected the key `refresh_token` here"),
        (
            &format!(
                "{url}, grant = \"client_credentials\", client_secret = {{ env = \"X\" }}, refresh_token = {{ env = \"X\" }}"
            ),
            "a refresh_token goes with grant",
        ),
        (
            &format!("{url}, grant = \"refresh_token\", refresh_token = \"sk_live_1\""),
            "expected a reference to a secret",
        ),
        ("token_url = \"http://10.0.0.1/t\"", "not on the public internet"),
        (&format!("{url}, stile = \"body\""), "did you mean `style`?"),
    ] {
        let all = oauth2(lines);
        assert!(all.contains(said) && !all.contains("sk_live"), "{all}");
    }
    let other = |lines: &str| refused(&with(lines));
    assert!(other("auth = { query = { name = \"k\" } }").contains("expected the key `value` here"));
    assert!(other("auth = { bearer = { credential = \"x_{tenant}\" } }").contains("no braces but {account}"));
    assert!(other("accounts = { \"\" = { auth = { bearer = { env = \"X\" } } } }").contains("the name of an account"));
    assert!(other("accounts = { a = { bearer = { env = \"X\" } } }").contains("expected the key `auth` here"));
}

#[test]
fn a_cache_rule_is_a_word_or_a_time_and_an_operation_has_its_own() {
    let rule = |lines: &str| {
        one(&operation(&format!("request = \"GET /x\"\n{lines}"))).operations.values().next().unwrap().cache
    };
    assert_eq!(rule(""), CacheRule::Off);
    assert_eq!(rule("cache = \"etag\""), CacheRule::Etag);
    let (ttl, stale) = (Duration::from_secs(300), Duration::from_secs(60));
    assert_eq!(rule("cache = { ttl = \"5m\", stale = \"1m\" }"), CacheRule::Ttl { ttl, stale });
    let both = with(
        "cache = \"rules\"\nlimits = [{ max = 60, per = \"1h\", not_counted = [304] }]\n[providers.crm.operations.op]\nrequest = \"GET /x\"",
    );
    let provider = one(&both);
    assert_eq!(provider.operations.values().next().unwrap().cache, CacheRule::Rules);
    assert_eq!(provider.limits[0].not_counted, [304]);
    assert!(refused(&operation("request = \"GET /x\"\ncache = \"etags\"")).contains("did you mean \"etag\""));
    assert!(refused(&operation("request = \"GET /x\"\ncache = { stale = \"1m\" }")).contains("the key `ttl`"));
    assert!(refused(&with("limits = [{ max = 60, per = \"1h\", not_counted = [99] }]")).contains("from 200 to 599"));
}

#[test]
fn every_key_that_is_read_is_in_the_manual() {
    let words: Vec<&str> = DEFAULT_TOML.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let mut keys = 0;
    for entry in std::fs::read_dir("src/config").unwrap() {
        let path = entry.unwrap().path();
        // Folders hold tests alone.
        if path.ends_with("tests.rs") || path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for call in [".get(", ".need(", ".node(", ".entry(", "section(reader, "] {
            for after in text.split(call).skip(1) {
                if let Some(key) = after.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()) {
                    if key.starts_with(|c: char| c.is_ascii_uppercase()) {
                        continue; // a variable of the environment
                    }
                    keys += 1;
                    assert!(words.contains(&key), "describe `{key}` of {} in default.toml", path.display());
                }
            }
        }
    }
    assert!(keys > 80, "{keys}: the search for keys finds too few");
}

#[test]
fn the_defaults_are_a_good_configuration() {
    let loaded = load(&LoadOptions::default()).unwrap_or_else(|p| panic!("{p}"));
    let config = loaded.config.clone();
    assert_eq!(config.server.listen, "127.0.0.1:7070".parse().unwrap());
    assert_eq!(config.store, Store::File(PathBuf::from("./tidegate.db")));
    assert_eq!(config.retention.dead, Duration::from_secs(30 * 86_400));
    assert!(config.server.socket.is_none() && config.providers.is_empty());
    assert!(loaded.explain().contains("server.listen = \"127.0.0.1:7070\""));
}

#[test]
fn only_a_store_and_a_limiter_that_keep_their_promises_together_are_taken() {
    let with = |flags: &[(&str, &str)]| {
        let flags = flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        load(&LoadOptions { flags, ..LoadOptions::default() }).map(|l| l.config).map_err(|p| p.to_string())
    };
    let (pg, redis) = (("store.kind", "postgres"), ("limiter.kind", "redis"));
    let (pg_url, redis_url) = (("store.url", "postgres://me@db/tidegate"), ("limiter.url", "redis://cache:6379"));
    let config = with(&[pg, redis, pg_url, redis_url, ("cluster.name", "north")]).unwrap();
    let plain = |url: &str| Address::Plain(url.to_owned());
    assert_eq!(config.store, Store::Postgres { url: plain(pg_url.1), connections_max: 8 });
    assert_eq!(config.limiter, Limiter::Redis { url: plain(redis_url.1), ca_file: None });
    assert_eq!(config.cluster.name, "north");
    assert!(!with(&[]).unwrap().cluster.name.is_empty());
    for (flags, said) in [
        (&[pg, pg_url][..], "each use the whole of every limit"),
        (&[redis, redis_url], "cannot be rebuilt from the journal of one"),
        (&[pg, redis, redis_url], "expected store.url"),
        (&[pg, redis, pg_url], "expected limiter.url"),
        (&[pg_url], "expected no url here: store.kind is \"sqlite\""),
        (&[redis_url], "expected no url here: limiter.kind is \"local\""),
        (&[("limiter.ca_file", "/ca.pem")], "expected no ca_file here: limiter.kind is \"local\""),
        (
            &[pg, redis, pg_url, redis_url, ("limiter.ca_file", "/ca.pem")],
            "expected no ca_file here: limiter.url has no TLS",
        ),
        (&[pg, redis, ("store.url", "mysql://db"), redis_url], "expected a URL like postgres://"),
        (&[pg, redis, ("store.url", "postgres://me:canary@db/t"), redis_url], "a password must not stand"),
    ] {
        let refused = with(flags).unwrap_err();
        assert!(refused.contains(said) && !refused.contains("canary"), "{refused}");
    }
}

#[test]
fn the_smallest_provider_is_small() {
    let crm = one(&operation("request = \"POST /x\""));
    assert_eq!((crm.in_flight_max, crm.response_bytes_max, crm.auth), (64, 1 << 20, Auth::None));
}

#[test]
fn the_environment_and_flags_win_and_are_named() {
    let env = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mut options = LoadOptions {
        env: env(&[
            ("TIDEGATE__SERVER__LISTEN", "127.0.0.1:1"),
            ("TIDEGATE__ENGINE__GRACE", "7s"),
            ("STATE_DIRECTORY", "/var/lib/tidegate:/var/lib/other"),
            ("RUNTIME_DIRECTORY", "/run/tidegate"),
        ]),
        flags: vec![("server.listen".into(), "127.0.0.1:2".into())],
        ..LoadOptions::default()
    };
    let loaded = load(&options).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(loaded.config.server.listen.port(), 2);
    assert_eq!(loaded.config.engine.grace, Duration::from_secs(7));
    assert_eq!(loaded.config.store, Store::File(PathBuf::from("/var/lib/tidegate/tidegate.db")));
    assert_eq!(loaded.config.server.socket, Some(PathBuf::from("/run/tidegate/tidegate.sock")));
    let explained = loaded.explain();
    assert!(explained.contains("# environment TIDEGATE__ENGINE__GRACE"), "{explained}");
    assert!(explained.contains("# --server.listen"), "{explained}");
    options.env = env(&[("TIDEGATE__SERVER__LISTNE", "x"), ("TIDEGATE__HTTP__LISTEN", "0.0.0.0:80")]);
    let problems = load(&options).unwrap_err().to_string();
    assert!(problems.contains("unknown key `listne`") && problems.contains("did you mean `listen`"), "{problems}");
    assert!(problems.contains("no TLS and no authentication yet"), "{problems}");
    assert!(problems.contains("environment TIDEGATE__SERVER__LISTNE"), "{problems}");
}

/// Each text is refused with each of the sentences.
#[test]
fn every_mistake_is_said_with_what_to_do() {
    let op = |line: &str| operation(&format!("request = \"POST /x\"\n{line}"));
    let batch = |lines: &str| operation(&format!("[providers.crm.operations.op.batch]\n{lines}"));
    let cases: Vec<(String, &[&str])> = vec![
        (with("bse_url = 1"), &["unknown key `bse_url`", "did you mean `base_url`?", "test.toml:3:1", "^"]),
        (with("xyzzy = 1"), &["unknown key `xyzzy`", "expected one of: accounts, allow_private"]),
        (with("base_url = \"https://b.example\""), &["duplicate key", "test.toml:3:1"]),
        (with("limits = [\"0/h\"]"), &["expected a limit of 1 to 100000000, got 0", "pause the provider"]),
        (with("limits = [\"10/sec\"]"), &["expected a rate like \"10/s\"", "did you mean \"10/s\"?"]),
        (with("limits = [\"100/10seconds\"]"), &["did you mean \"100/10s\"?"]),
        (with("limits = [\"ten/s\"]"), &["expected a rate like"]),
        (with("limits = [\"10/1ms\"]"), &["expected a window from 10ms to 32d"]),
        (with("limits = \"10/s\""), &["expected a list in brackets", "write a list"]),
        (with("limits = [10]"), &["expected a rate like \"3600/h\" or a table"]),
        (with("limits = [\"10/s\", \"20/s\"]"), &["two limits named `all`", "the first one"]),
        (with("limits = [{ name = \"a\", max = 0, per = \"1h\" }]"), &["expected a whole number from 1"]),
        (
            with("limits = [{ name = \"a\", max = 5, per = \"1h\", cost = 6 }]"),
            &["a cost of at most the limit's 5, got 6"],
        ),
        (
            with("limits = [{ max = 5, per = \"1h\", reserve = { urgent = 5 } }]"),
            &["expected reserves below the limit's 5"],
        ),
        (with("limits = [{ max = 5 }]"), &["expected the key `per`"]),
        (with("limits = [{ max = 5, per = 3600 }]"), &["expected a time from 10ms", "\"3600s\""]),
        (with("limits = [{ max = 5, per = \"10sec\" }]"), &["did you mean \"10s\"?"]),
        (with("limits = [{ max = 5, per = \"1h\", jitter = \"1s\" }]"), &["`jitter` means nothing here"]),
        (
            with("limits = [{ bucket = 5, refill = \"1/s\", learned = true }]"),
            &["`learned` means nothing here", "write a window"],
        ),
        (
            with("limits = [{ max = 5, per = \"1h\", scope = \"key\", learned = true }]"),
            &["nothing is learned of single keys"],
        ),
        (with("limits = [{ max = 5, per = \"1h\", anchor = \"send\" }]"), &["expected `jitter` beside"]),
        (with("limits = [{ max = 5, per = \"1h\", header = \"x-ratelimit\" }]"), &["unknown key `header`"]),
        (with("limits = [{ max = 5, calendar = \"day\", zone = \"Mars/Base\" }]"), &["expected a time zone"]),
        (with("limits = [{ max = 5, per = \"1h\", methods = \"GTE\" }]"), &["expected methods like"]),
        (with("limits = [{ max = 5, per = \"1h\", scope = \"acount\" }]"), &["did you mean \"account\"?"]),
        (with("limits = [{ bucket = 5 }]"), &["expected the key `refill`"]),
        (with("pagination = \"link\""), &["unknown key `pagination`"]),
        (with("in_flight_max = 0"), &["expected a whole number from 1 to 4096, got 0"]),
        (with("spread = 0"), &["expected a whole number from 1 to 64, got 0"]),
        (with("spread = 65"), &["expected a whole number from 1 to 64, got 65"]),
        (with("tenants = { big = 0 }"), &["expected a whole number from 1 to 1000, got 0"]),
        (with("tenants = { \"a\\u0000b\" = 2 }"), &["expected a tenant without control"]),
        (with("tenants = [\"big\"]"), &["expected a table"]),
        (with("timeouts = { total = \"0s\" }"), &["expected a time from 10ms to 15m"]),
        (with("breaker = { failure_share = 2.0 }"), &["expected a share above 0"]),
        (with("breaker = { open_base = \"1h\", open_max = \"1m\" }"), &["expected open_base of at most open_max"]),
        (with("retry = { base = \"1h\", cap = \"1m\" }"), &["at most the cap"]),
        (with("throttled = [{}]"), &["an empty match fits every answer"]),
        (with("throttled = [{ status = 42 }]"), &["expected a status like"]),
        (with("headers = { Host = \"x\" }"), &["the header host belongs to the transport"]),
        (with("headers = { \"content-length\" = \"1\" }"), &["belongs to the transport"]),
        (with("headers = { \"Transfer-Encoding\" = \"chunked\" }"), &["belongs to the transport"]),
        (with("headers = { Connection = \"close\" }"), &["belongs to the transport"]),
        (with("headers = { Authorization = \"Bearer canary\" }"), &["use auth = "]),
        (with("headers = { X = \"a\\r\\nY: b\" }"), &["without line ends"]),
        (with("headers = { \"X Y\" = \"a\" }"), &["expected the name of a header"]),
        (with("headers = { X = \"{key}\" }"), &["{key} cannot be used in a header of the provider"]),
        (op("body = \"{payloda}\""), &["unknown variable {payloda}", "{payload}"]),
        (op("body = \"x {key}\""), &["exactly one variable"]),
        (op("body = { a = \"{payload\" }"), &["expected '}' after"]),
        (op("coalesce = \"merg\""), &["did you mean \"merge\"?"]),
        (op("idempotency = { header = \"X\" }"), &["expected the key `life`"]),
        (op("failed_if = [{ json = \"$.error\" }]"), &["did you mean \"/error\"?"]),
        (operation(""), &["expected the key `request`"]),
        (operation("request = \"PUT\""), &["a method and a path like"]),
        (operation("request = \"FETCH /x\""), &["one of GET, HEAD"]),
        (operation("request = \"GET x\""), &["the path starts with '/'"]),
        (operation("request = \"GET /a b\""), &["' ' is percent-encoded"]),
        (operation("request = \"GET /a/../b\""), &["without '.' and '..'"]),
        (operation("request = \"GET /x\"\nbody = { a = 1 }"), &["GET has no body"]),
        (batch("request = \"POST /x\"\nbody = \"{payloads}\""), &["expected the key `size`"]),
        (batch("request = \"POST /x\"\nsize = 10\nbody = { a = 1 }"), &["expected {payloads} or {keys} in a batch"]),
        (batch("request = \"POST /x\"\nsize = 10"), &["expected {payloads} or {keys} in a batch"]),
        (batch("request = \"POST /{key}\"\nsize = 10\nbody = \"{payloads}\""), &["write {keys}"]),
        (
            batch(
                "request = \"POST /x\"\nsize = 10\nbody = \"{payloads}\"\nresult = { each = \"results\", key = \"id\" }",
            ),
            &["expected a JSONPath", "expected a JSON pointer"],
        ),
        (
            operation(
                "limits = [\"1/s\"]\n[providers.crm.operations.op.batch]\nrequest = \"POST /x\"\nsize = 1\nbody = \"{payloads}\"",
            ),
            &["`limits` belongs to the single lane"],
        ),
        ("[providers.Crm]\nbase_url = \"https://a.example\"".into(), &["expected a provider name of lower-case"]),
        ("[providers.crm]".into(), &["expected the key `base_url`"]),
        (String::new(), &["expected the key `providers`"]),
        ("[providers]".into(), &["expected a provider, got an empty table"]),
        ("[server]\nlisten = \"x\"".into(), &["unknown key `server`"]),
        ("providers = 3".into(), &["expected tables [providers.NAME]"]),
        ("[providers.crm\n".into(), &["test.toml:1:"]),
    ];
    for (text, sentences) in cases {
        let said = refused(&text);
        for sentence in sentences {
            assert!(said.contains(sentence), "expected {sentence:?} for:\n{text}\ngot:\n{said}");
        }
    }
}

#[test]
fn a_base_url_leads_to_the_public_internet_and_nowhere_else() {
    let url = |url: &str, more: &str| format!("[providers.crm]\nbase_url = \"{url}\"\n{more}\n");
    let cases = [
        ("ftp://a.example", "got ftp"),
        ("file:///etc/passwd", "got file"),
        ("crm.example", "expected a URL"),
        ("https://me:canary@a.example", "without user and password"),
        ("https://a.example/?k=v", "without query"),
        ("https://a.example/#x", "without query"),
        ("http://localhost:80", "not on the public internet"),
        ("http://127.0.0.1", "not on the public internet"),
        ("http://2130706433", "not on the public internet"),
        ("http://0x7f.1", "not on the public internet"),
        ("http://10.1.2.3", "not on the public internet"),
        ("http://169.254.169.254/latest", "not on the public internet"),
        ("http://[::1]", "not on the public internet"),
        ("http://[::ffff:10.0.0.1]", "not on the public internet"),
        ("http://db.internal", "not on the public internet"),
    ];
    for (text, sentence) in cases {
        let said = refused(&url(text, ""));
        assert!(said.contains(sentence), "{text}: {said}");
        assert!(!said.contains("canary"), "{said}");
    }
    one(&url("http://127.0.0.1:1", "allow_private = true\n[providers.crm.operations.x]\nrequest = \"GET /\""));
}

#[test]
fn a_secret_in_place_of_a_reference_is_refused_and_never_shown() {
    let cases = [
        "auth = \"canary\"",
        "auth = { bearer = \"canary\" }",
        "auth = { basic = { username = \"me\", password = \"canary\" } }",
        "auth = { header = { name = \"X-Key\", value = \"canary\" } }",
        "auth = { beaer = \"canary\" }",
        "auth = { bearer = \"canary\"",
    ];
    for case in cases {
        let said = refused(&with(case));
        assert!(!said.contains("canary"), "{said}");
    }
    assert!(refused(&with(cases[1])).contains("{ credential = \"x\" }"));
    assert!(refused(&with("auth = { bearer = { env = \"A\", file = \"/b\" } }")).contains("exactly one of credential"));
    assert!(refused(&with("auth = { bearer = { file = \"b\" } }")).contains("expected an absolute path"));
    assert!(refused(&with("auth = { bearer = { credential = \"../b\" } }")).contains("a plain name"));
}

#[test]
fn all_problems_come_at_once_in_reading_order() {
    let text = with("limits = [\"0/h\", \"10/sec\"]\nfoo = 1\n[providers.crm.operations.op]\nrequest = \"GET x\"");
    let problems = parse(&text, "test.toml").unwrap_err();
    let lines: Vec<usize> = problems.iter().map(|p| p.at.as_ref().unwrap().line_column().0).collect();
    assert_eq!(lines, [3, 3, 4, 6]);
}

#[test]
fn two_operations_may_share_a_limit_but_not_redefine_it() {
    let ops = |a: u32, b: u32| {
        let op = |name: &str, max: u32| {
            let limit = format!("limits = [{{ name = \"writes\", max = {max}, per = \"1m\" }}]");
            format!("[providers.crm.operations.{name}]\nrequest = \"POST /{name}\"\n{limit}\n")
        };
        with(&(op("a", a) + &op("b", b)))
    };
    one(&ops(5, 5));
    assert!(refused(&ops(5, 6)).contains("declared twice with different numbers"));
}

#[test]
fn a_provider_comes_out_of_a_file_with_several() {
    let alone = operation("request = \"PUT /{key}\" # a comment\nbody = { b = 1, a = [1.5, \"{payload}\"] }");
    assert_eq!(source_of(&alone, "crm").as_deref(), Some(alone.as_str()));
    let two =
        format!("[server]\nlisten = \"127.0.0.1:1\"\n{alone}[providers.other]\nbase_url = \"https://o.example\"\n");
    let own = source_of(&two, "crm").unwrap();
    assert!(!own.contains("other") && !own.contains("server"));
    assert_eq!(one(&own), one(&alone));
    assert_eq!(source_of(&two, "nobody"), None);
}

#[test]
fn a_deep_or_long_text_is_no_danger() {
    refused(&format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000)));
    refused(&format!("{}x = 1", "a.".repeat(50_000)));
    assert!(refused(&"#".repeat(300_000)).contains("expected at most 262144 bytes"));
}

#[test]
fn no_environment_is_looked_at_but_the_one_handed_in() {
    assert!(LoadOptions::default().env.is_empty());
    let _: BTreeMap<String, String> = LoadOptions::from_process(None).env;
}

proptest! {
    #[test]
    fn any_text_is_a_provider_or_a_list_of_problems(text in "(.|\n){0,200}") {
        if let Err(problems) = parse(&text, "any.toml") {
            prop_assert!(!problems.to_string().is_empty());
        }
    }

    #[test]
    fn a_spoiled_example_is_read_or_refused_in_full(at in 0usize..4_000, cut in 0usize..60, put in "[\\]\\[{}\"'=.#\n a-z0-9é\u{0}]{0,4}") {
        let mut text = example();
        let start = text.floor_char_boundary(at.min(text.len()));
        let end = text.floor_char_boundary((start + cut).min(text.len()));
        text.replace_range(start..end.max(start), &put);
        if let Err(problems) = parse(&text, "any.toml") {
            prop_assert!(!problems.to_string().is_empty());
            let _ = problems.render(true);
        }
    }

    #[test]
    fn any_rate_is_read_or_refused(text in "[0-9]{0,12}/?[0-9]{0,6}[a-z]{0,8}|.{0,20}") {
        let _ = limits::rate(&text);
    }
}

#[test]
fn how_answers_speak_of_a_limit_is_declared_by_a_preset_or_by_names() {
    let of = |limit: &str, headers: &str| {
        with(&format!(
            "limits = [{{ name = \"core\", {limit}, headers = {headers} }}]\n[providers.crm.operations.op]\nrequest = \"GET /x\""
        ))
    };
    let window = |headers: &str| of("max = 60, per = \"1h\"", headers);
    let read = |headers: &str| one(&window(headers)).limits[0].headers.as_deref().cloned().unwrap();
    for (name, preset) in LimitHeaders::PRESETS {
        assert_eq!(read(&format!("{name:?}")), preset);
    }
    let named = read(r#"{ remaining = "X-Left", reset = "X-Again", reset_unit = "epoch-milliseconds" }"#);
    let LimitHeaders::Named(names) = named else { panic!("{named:?}") };
    assert_eq!(names.remaining.unwrap(), "x-left");
    assert_eq!(names.reset.unwrap().1, TimeUnit::EpochMilliseconds);
    assert!(refused(&window("\"x-ratelimits\"")).contains("x-ratelimit"));
    assert!(refused(&window(r#"{ reset = "X-Again" }"#)).contains("says what is left"));
    assert!(refused(&window(r#"{ remaining = "X Left" }"#)).contains("the name of a header"));
    assert!(refused(&window(r#"{ remaining = "X-Left", resets = "X" }"#)).contains("reset"));
    assert!(refused(&of("concurrent = 3", "\"x-ratelimit\"")).contains("means nothing here"));
}
