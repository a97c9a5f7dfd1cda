//! Hiding what may be a secret before a line of a configuration is shown.
//!
//! A secret should not stand in a configuration, but people try, and the message that tells them so must not print it.
//! Works on the text, because a text that cannot be parsed has secrets too. Hides rather too much. Must never know: the
//! grammar.

/// Words that make a line suspect.
const SUSPECT: [&str; 8] = ["auth", "bearer", "basic", "password", "secret", "token", "value", "key"];
/// Texts after these keys are names and references, and are shown.
const SHOWN: [&str; 14] = [
    "credential",
    "file",
    "env",
    "name",
    "username",
    "request",
    "per",
    "scope",
    "idempotency",
    "header",
    "life",
    "each",
    "failed_if",
    "retry_if",
];

/// The text with suspect parts replaced by asterisks, byte for byte, so that places stay where they are.
pub fn redacted(name: &str, text: &str) -> String {
    if suspect(name) {
        return stars(text);
    }
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let line = without_user_info(line);
        if suspect(&line) { hide_texts(&line, &mut out) } else { out.push_str(&line) }
    }
    out
}

fn suspect(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    SUSPECT.iter().any(|word| text.contains(word))
}

fn stars(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { "\n".to_owned() } else { "*".repeat(c.len_utf8()) }).collect()
}

/// `https://user:password@host` with the middle hidden.
fn without_user_info(line: &str) -> String {
    let Some((before, rest)) = line.split_once("://") else { return line.to_owned() };
    let end = rest.find(['/', '"', '\'', ' ', '\n']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{before}://{}{}", stars(&rest[..at]), &rest[at..]),
        None => line.to_owned(),
    }
}

/// Hides the inside of quoted texts, unless their key says that they are a name.
fn hide_texts(line: &str, out: &mut String) {
    let mut rest = line;
    while let Some(open) = rest.find(['"', '\'']) {
        let quote = &rest[open..=open];
        let (before, inside) = (&rest[..open], &rest[open + 1..]);
        out.push_str(before);
        out.push_str(quote);
        let close = inside.find(quote).unwrap_or_else(|| inside.trim_end_matches(['\n', '\r']).len());
        let key = before.trim_end().trim_end_matches('=').trim_end();
        let key = key.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        // A brace makes a template of it, and a slash a path or pointer.
        let harmless = inside[..close].starts_with(['/', '{', '$']);
        if SHOWN.contains(&key) || harmless || before.trim_end().ends_with('[') && before.trim_start().starts_with('[')
        {
            out.push_str(&inside[..close]);
        } else {
            out.push_str(&stars(&inside[..close]));
        }
        rest = &inside[close..];
        if let Some(after) = rest.strip_prefix(quote) {
            out.push_str(quote);
            rest = after;
        }
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_hidden_and_references_shown() {
        let hidden = [
            "auth = { bearer = \"sk_live_123\" }\n",
            "bearer = 'sk_live_123'",
            "auth = { basic = { username = \"me\", password = \"sk_live_123\" } }",
            "auth = { bearer = \"sk_live_123",
            "base_url = \"https://me:sk_live_123@crm.example/v2\"",
            "value = \"sk_live_123\"",
        ];
        for line in hidden {
            let shown = redacted("a.toml", line);
            assert!(!shown.contains("sk_live") && shown.len() == line.len(), "{shown}");
        }
        for line in
            ["auth = { bearer = { credential = \"crm_key\" } }", "request = \"PUT /users/{key}\"", "max = \"x\""]
        {
            assert_eq!(redacted("a.toml", line), line);
        }
        assert_eq!(redacted("environment TIDEGATE__PROVIDERS__CRM__AUTH", "sk_live"), "*******");
    }

    proptest! {
        #[test]
        fn places_stay_where_they_are(text in "(.|\n|\"|auth|://|@){0,60}") {
            let shown = redacted("a.toml", &text);
            prop_assert_eq!(shown.len(), text.len());
            for (at, _) in text.char_indices() {
                prop_assert!(shown.is_char_boundary(at));
            }
        }
    }
}
