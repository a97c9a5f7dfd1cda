//! The provider profiles of the folder `providers/`, as they were when this program was built.
//!
//! Must never know: what stands in them. Next: `init.rs`, which writes them out.

/// Name and text, by name.
pub const PROFILES: [(&str, &str); 12] = [
    ("apple-music", include_str!("../../../providers/apple-music.toml")),
    ("github", include_str!("../../../providers/github.toml")),
    ("hubspot", include_str!("../../../providers/hubspot.toml")),
    ("jsonplaceholder", include_str!("../../../providers/jsonplaceholder.toml")),
    ("klaviyo", include_str!("../../../providers/klaviyo.toml")),
    ("marketing", include_str!("../../../providers/marketing.toml")),
    ("shopify", include_str!("../../../providers/shopify.toml")),
    ("slack", include_str!("../../../providers/slack.toml")),
    ("spotify", include_str!("../../../providers/spotify.toml")),
    ("stripe", include_str!("../../../providers/stripe.toml")),
    ("tidal", include_str!("../../../providers/tidal.toml")),
    ("youtube", include_str!("../../../providers/youtube.toml")),
];

pub fn find(name: &str) -> Option<&'static str> {
    PROFILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// What the first line says: name of the API, version and date of the profile.
pub fn title(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_start_matches("# ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_of_the_folder_is_built_in_and_says_where_its_numbers_are_from() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/providers")).unwrap();
        let mut files: Vec<String> =
            folder.flatten().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        files.retain(|name| name.ends_with(".toml"));
        files.sort();
        let names: Vec<String> = PROFILES.iter().map(|(name, _)| format!("{name}.toml")).collect();
        assert_eq!(names, files, "the list in src/cli/init/profiles.rs is that of providers/*.toml, by name");
        for (name, text) in PROFILES {
            let version = title(text).split_once("Profile ").and_then(|(_, rest)| rest.split_once(", 20"));
            let version = version.and_then(|(number, _)| number.parse::<u32>().ok());
            assert!(version.is_some(), "{name}: expected `NAME. Profile N, DATE.` as first line");
            let sources = text.lines().take_while(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n");
            assert!(sources.contains("\n# Numbers: "), "{name}: say where its numbers are from");
            let dated = sources.contains("https://") && sources.contains("read 20");
            assert!(dated || name == "marketing", "{name}: expected an address and the date on which it was read");
        }
    }
}
