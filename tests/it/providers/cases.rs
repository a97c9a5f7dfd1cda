//! What the APIs of the profiles publish and how they refuse, and how they tell their lists: by hand, from their own pages.

use tidegate::simulator::config::HeaderStyle;

/// Jobs of one operation; `{n}` in key and payload is the number of the job, `{m}` one of 0 to 3.
pub struct Work {
    pub operation: &'static str,
    pub jobs: usize,
    pub key: &'static str,
    pub payload: &'static str,
}

pub const fn work(operation: &'static str, jobs: usize, key: &'static str, payload: &'static str) -> Work {
    Work { operation, jobs, key, payload }
}

pub struct Case {
    pub profile: &'static str,
    /// As published. Empty: nothing is.
    pub limits: &'static [&'static str],
    pub status: u16,
    pub headers: HeaderStyle,
    /// Limits that its numbers are about, and as how large they are told. Empty: answers tell no number.
    pub told: &'static [(&'static str, i64)],
    /// What a refusal says, where that matters.
    pub body: &'static str,
    pub work: &'static [Work],
    /// Jobs of each operation for a stingy API. Few where it does not say when to come back (each refusal doubles the wait),
    /// or where refusals use up the day's quota.
    pub stingy: usize,
}

pub const RECORD: &str = r#"{"id":"r{n}","n":1}"#;

/// 1 for a read, 5 for what writes.
const POINTS: &str = "points=rolling:900/60s;5@POST";
/// 1 for a list, 50 for a delete; searches have a number of their own.
const UNITS: &str = "units=fixed:10000/1d@/youtube/v3/playlistItems;50@DELETE";

/// Limits whose calls cost more and less, as profile and rule, and more work than they let through, which adds up to their
/// last unit however it is mixed.
pub const COSTLY: [(&str, &str, &[Work]); 2] = [
    (
        "github",
        POINTS,
        &[
            work("comment", 40, "o/r/{n}", r#"{"owner":"o","name":"r","issue":{n},"text":"hello"}"#),
            work("get_repository", 1_000, "", r#"{"owner":"o","name":"r{n}"}"#),
        ],
    ),
    (
        "youtube",
        UNITS,
        &[work("delete_playlist_item", 250, "r{n}", "null"), work("list_playlist_items", 50, "p{n}", "null")],
    ),
];

/// Limits whose numbers are guesses, because none is published: profile and name.
pub const GUESSED: [(&str, &str); 4] =
    [("apple-music", "token"), ("slack", "workspace"), ("spotify", "app"), ("tidal", "app")];

pub const CASES: [Case; 12] = [
    Case {
        profile: "apple-music",
        limits: &[],
        status: 429,
        headers: HeaderStyle::RetryAfter,
        told: &[],
        body: "",
        work: &[work("add_song", 12, "r{n}", "null"), work("get_song", 4, "s{n}", r#"{"storefront":"us"}"#)],
        stingy: 20,
    },
    Case {
        profile: "github",
        limits: &[
            "core=rolling:5000/1h",
            "writes=rolling:80/60s@POST /repos/*",
            "writes-hour=rolling:500/1h@POST /repos/*",
            POINTS,
            "at-once=concurrency:100",
        ],
        status: 403,
        headers: HeaderStyle::XRatelimit,
        told: &[("core", 5_000)],
        body: "",
        work: &[
            work("comment", 40, "o/r/{n}", r#"{"owner":"o","name":"r","issue":{n},"text":"hello"}"#),
            work("get_repository", 150, "", r#"{"owner":"o","name":"r{n}"}"#),
            work("get_user", 4, "u{n}", "null"),
        ],
        stingy: 4,
    },
    Case {
        profile: "hubspot",
        limits: &["burst=rolling:100/10s", "daily=fixed:250000/1d"],
        status: 429,
        headers: HeaderStyle::Hubspot,
        told: &[("burst", 100), ("daily", 250_000)],
        body: "",
        work: &[work("update_contact", 1_500, "r{n}", RECORD)],
        stingy: 700,
    },
    Case {
        profile: "jsonplaceholder",
        limits: &["courtesy=rolling:10/1s"],
        status: 429,
        headers: HeaderStyle::RetryAfter,
        told: &[],
        body: "",
        work: &[work("put_post", 25, "r{n}", RECORD), work("get_post", 5, "{n}", "null")],
        stingy: 20,
    },
    Case {
        profile: "klaviyo",
        limits: &[
            "update-burst=fixed:75/1s@PATCH /api/profiles/*",
            "update-steady=fixed:700/60s@PATCH /api/profiles/*",
            "import-burst=fixed:10/1s@POST /api/profile-bulk-import-jobs",
            "import-steady=fixed:150/60s@POST /api/profile-bulk-import-jobs",
        ],
        status: 429,
        headers: HeaderStyle::RatelimitLegacy,
        told: &[("update-steady", 700), ("import-steady", 150)],
        body: "",
        work: &[work("update_profile", 160, "r{n}", RECORD), work("import_profile", 100, "i{n}", RECORD)],
        stingy: 20,
    },
    Case {
        profile: "marketing",
        limits: &["batch=rolling:50/1h@POST /users/batch", "single=rolling:3600/1h@PUT /users/*"],
        status: 429,
        headers: HeaderStyle::RetryAfter,
        told: &[],
        body: "",
        // Full batches, and what is left goes singly.
        work: &[work("update_user", 5_010, "r{n}", RECORD)],
        stingy: 1_010,
    },
    Case {
        profile: "shopify",
        limits: &["bucket=bucket:40,2/1s"],
        status: 429,
        headers: HeaderStyle::Shopify,
        told: &[("bucket", 40)],
        body: "",
        work: &[work("update_order", 44, "r{n}", RECORD), work("get_order", 4, "g{n}", "null")],
        stingy: 20,
    },
    Case {
        profile: "slack",
        // How much a workspace may is not published.
        limits: &["posts=rolling:100000/1h@POST /api/chat.postMessage"],
        status: 429,
        headers: HeaderStyle::RetryAfter,
        told: &[],
        body: "",
        work: &[work("post_message", 16, "c{m}", r#"{"id":"c{m}","text":"{n}"}"#)],
        stingy: 20,
    },
    Case {
        profile: "spotify",
        limits: &[],
        status: 429,
        headers: HeaderStyle::RetryAfter,
        told: &[],
        body: "",
        work: &[work("remove_track", 600, "r{n}", "null"), work("save_track", 60, "s{n}", "null")],
        stingy: 600,
    },
    Case {
        profile: "stripe",
        limits: &[
            "global=rolling:100/1s",
            "update=rolling:25/1s@POST /v1/customers/*",
            "get=rolling:25/1s@GET /v1/customers/*",
            "confirm=rolling:25/1s@POST /v1/payment_intents/*",
        ],
        status: 429,
        headers: HeaderStyle::None,
        told: &[],
        body: "",
        work: &[
            work("update_customer", 60, "cus_{n}", r#"{"email":"e{n}@example.com","name":"N"}"#),
            work("get_customer", 30, "got_{n}", "null"),
            work("confirm_payment", 30, "pi_{n}", "null"),
        ],
        stingy: 4,
    },
    Case {
        profile: "tidal",
        limits: &[],
        status: 429,
        headers: HeaderStyle::RetryAfter,
        told: &[],
        body: "",
        work: &[
            work("add_tracks", 12, "r{n}", RECORD),
            work("remove_tracks", 4, "x{n}", RECORD),
            work("get_track", 4, "t{n}", "null"),
        ],
        stingy: 20,
    },
    Case {
        profile: "youtube",
        limits: &[UNITS, "searches=fixed:100/1d@GET /youtube/v3/search"],
        status: 403,
        headers: HeaderStyle::RetryAfter,
        told: &[],
        body: r#"{"error":{"errors":[{"reason":"rateLimitExceeded"}],"code":403}}"#,
        work: &[
            work("delete_playlist_item", 20, "r{n}", "null"),
            work("list_playlist_items", 20, "p{n}", "null"),
            work("search", 10, "s{n}", "null"),
        ],
        stingy: 4,
    },
];

/// Lists of profiles as their APIs tell them: operation, path and way, then items, cursor, parameters of place and size.
pub const LISTS: [(&str, &str, [&str; 4]); 7] = [
    ("apple-music/list_library_songs", "/v1/me/library/songs=offset", ["/data", "/next", "offset", "limit"]),
    ("github/list_repositories", "/user/repos=link", ["", "/next", "page", "per_page"]),
    ("hubspot/list_contacts", "/crm/v3/objects/contacts=cursor", ["/results", "/paging/next/after", "after", "limit"]),
    ("jsonplaceholder/list_posts", "/posts=page", ["", "/next", "_page", "_limit"]),
    ("shopify/list_orders", "/admin/api/2026-10/orders.json=link", ["/orders", "/next", "page_info", "limit"]),
    (
        "slack/list_channels",
        "/api/conversations.list=cursor",
        ["/channels", "/response_metadata/next_cursor", "cursor", "limit"],
    ),
    ("spotify/list_saved_tracks", "/v1/me/tracks=offset", ["/items", "/next", "offset", "limit"]),
];
