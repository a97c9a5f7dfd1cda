//! Declarations of `external`: each that cannot be has its sentence, with the line.

use super::*;

#[test]
fn an_external_operation_that_cannot_be_is_refused_with_its_line() {
    let fine = one(&operation("external = { lease = \"1s\", within = \"10m\" }\nlimits = [\"5/m\"]"));
    let external = fine.operations.values().next().unwrap().external.unwrap();
    assert_eq!((external.lease.as_secs(), external.within.as_secs()), (1, 600));
    for (lines, said) in [
        ("external = false", "expected true, or a table such as { lease = \"30s\", within = \"10m\" }"),
        ("external = \"yes\"", "expected true, or a table"),
        ("external = { lease = \"500ms\" }", "500ms"),
        ("external = { within = \"11m\" }", "11m"),
        ("external = { lease = 30 }", "expected"),
        ("external = { leese = \"30s\" }", "did you mean `lease`?"),
    ] {
        let all = refused(&operation(lines));
        assert!(all.contains(said) && all.contains("test.toml:4:"), "{lines}: {all}");
    }
    for (key, value) in [
        ("request", "\"GET /\""),
        ("query", "{ a = \"b\" }"),
        ("headers", "{ a = \"b\" }"),
        ("body", "\"{payload}\""),
        ("batch", "{ request = \"POST /\", size = 2 }"),
        ("pages", "{ items = \"/data\", next = \"link\" }"),
        ("cache", "\"etag\""),
        ("idempotency", "{ header = \"x\" }"),
        ("delivered_if", "[{ status = 200 }]"),
        ("failed_if", "[{ status = 200 }]"),
        ("retry_if", "[{ status = 200 }]"),
        ("log_bodies", "true"),
        ("redact", "[\"/a\"]"),
    ] {
        let all = refused(&operation(&format!("external = true\n{key} = {value}")));
        let said = format!("an external operation has no `{key}`: the daemon makes no call for it");
        assert!(all.contains(&said) && all.contains("test.toml:5:"), "{all}");
    }
}
