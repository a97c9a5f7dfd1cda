//! What the profiles declare: every operation, with the requests of its lanes as the simulated API would see them.

use tidegate::cli::init::profiles::PROFILES;
use tidegate::simulator::Arrival;

pub struct Operation {
    /// `profile/operation`.
    pub name: String,
    /// Method and path of each lane, in which `{...}` stands for anything.
    requests: Vec<(String, String)>,
}

impl Operation {
    /// Did a call of it arrive, and was it taken?
    pub fn arrived(&self, arrivals: &[Arrival]) -> bool {
        let one = |a: &Arrival| {
            a.status == 200 && self.requests.iter().any(|(method, path)| a.method == *method && fits(path, &a.path))
        };
        arrivals.iter().any(one)
    }
}

/// Of all profiles, read from the files themselves and not from what the daemon makes of them.
pub fn declared() -> Vec<Operation> {
    let mut all = Vec::new();
    for (profile, text) in &PROFILES {
        let file: toml::Table = text.parse().unwrap();
        let provider = file["providers"][*profile].as_table().unwrap();
        let base: url::Url = provider["base_url"].as_str().unwrap().parse().unwrap();
        let prefix = base.path().trim_end_matches('/');
        for (name, operation) in provider["operations"].as_table().unwrap() {
            let lanes = [Some(operation), operation.get("batch")];
            let requests =
                lanes.into_iter().flatten().filter_map(|lane| lane.get("request")?.as_str()).map(|request| {
                    let (method, path) = request.split_once(' ').unwrap();
                    (method.to_owned(), format!("{prefix}{path}"))
                });
            let requests: Vec<(String, String)> = requests.collect();
            assert!(!requests.is_empty(), "{profile}/{name} has no request");
            all.push(Operation { name: format!("{profile}/{name}"), requests });
        }
    }
    all
}

/// Segment by segment: `/orders/{key}.json` and `/orders/r7.json`.
fn fits(template: &str, path: &str) -> bool {
    let (wanted, seen): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    wanted.len() == seen.len()
        && wanted.iter().zip(&seen).all(|(wanted, seen)| match (wanted.split_once('{'), wanted.rsplit_once('}')) {
            (Some((before, _)), Some((_, after))) => {
                seen.len() > before.len() + after.len() && seen.starts_with(before) && seen.ends_with(after)
            }
            _ => wanted == seen,
        })
}
