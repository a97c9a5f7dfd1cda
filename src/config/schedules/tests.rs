//! Declarations of schedules: the manual's own, pulls, and what cannot tick.

use super::super::{DEFAULT_TOML, DeclaredSchedule, problem, tree};
use super::*;
use crate::config::Problems;

#[test]
fn the_manuals_example_of_a_schedule_is_the_default_of_one() {
    let from = DEFAULT_TOML.find("#[schedules.refresh]").expect("there is an example");
    let lines = DEFAULT_TOML[from..].lines().take_while(|l| !l.starts_with("# ----"));
    let text: String =
        lines.filter(|l| l.starts_with('#') && !l.starts_with("# ")).map(|l| format!("{}\n", &l[1..])).collect();
    let schedules = schedules_of(&text).unwrap();
    let spec = &schedules[0].spec;
    assert_eq!((spec.overlap, spec.missed, &*spec.zone), (Overlap::default(), Missed::default(), "Europe/Berlin"));
    let Target::Jobs(jobs) = &spec.target else { panic!("expected jobs") };
    assert_eq!((&*jobs[0].payload, jobs[0].labels.len()), (r#"{"name":"Ada"}"#, 1));
}

fn schedules_of(text: &str) -> Result<Vec<DeclaredSchedule>, Problems> {
    let found = problem::Found::default();
    let source = std::sync::Arc::new(problem::Source { name: "test.toml".into(), text: text.into() });
    let table = tree::parse(&source, &found);
    let schedules = read_all(&found, &table["schedules"].node);
    found.or(schedules)
}

#[test]
fn a_schedule_pulls_a_collection_that_is_pulled() {
    let of = |lines: &str| schedules_of(&format!("[schedules.x]\ncron = \"@daily\"\n{lines}\n"));
    for (lines, full) in [("pull = \"items\"", false), ("pull = { collection = \"items\", full = true }", true)] {
        let Target::Pull(pull) = &of(lines).unwrap()[0].spec.target else { panic!("expected a pull") };
        assert_eq!((pull.collection.as_str(), pull.full), ("items", full));
    }
    let both = of("pull = \"items\"\njob = { provider = \"crm\", operation = \"pull\" }").unwrap_err().to_string();
    assert!(both.contains("exactly one of `job`, `jobs`, `pull` and `invalidate`"), "{both}");
    let found = problem::Found::default();
    let source = std::sync::Arc::new(problem::Source { name: "test.toml".into(), text: "[schedules]".into() });
    let table = tree::parse(&source, &found);
    check_pulls(&found, &table["schedules"].node, &of("pull = \"items\"").unwrap(), &[]);
    let said = found.or(()).unwrap_err().to_string();
    assert!(said.contains("schedule x pulls items") && said.contains("[collections.items.pull]"), "{said}");
}

#[test]
fn a_schedule_that_cannot_tick_says_which_part_is_wrong() {
    let refused = |lines: &str| schedules_of(&format!("[schedules.x]\n{lines}\n")).unwrap_err().to_string();
    let job = "job = { provider = \"crm\", operation = \"pull\" }";
    for (lines, said) in [
        (format!("cron = \"61 * * * *\"\n{job}"), "cron line"),
        (format!("cron = \"@daily\"\nzone = \"Mars/Olympus\"\n{job}"), "time zone"),
        (format!("cron = \"@daily\"\noverlap = \"skp\"\n{job}"), "did you mean \"skip\""),
        (format!("cron = \"@daily\"\nmissed = {{ all = 0 }}\n{job}"), "from 1 to 1000"),
        ("cron = \"@daily\"".to_owned(), "exactly one of"),
        (job.to_owned(), "the key `cron`"),
        (format!("cron = \"@daily\"\n{job}\ninvalidate = {{ namespace = \"crm\", prefix = \"\" }}"), "exactly one of"),
        ("cron = \"@daily\"\ninvalidate = { namespace = \"crm\" }".to_owned(), "either `key` or `prefix`"),
        ("cron = \"@daily\"\njobs = []".to_owned(), "1 to 1000 jobs"),
        (format!("cron = \"@daily\"\njitter = \"2h\"\n{job}"), "up to 1h"),
    ] {
        let told = refused(&lines);
        assert!(told.contains(said) || said == "up to 1h" && told.contains("1h"), "{lines}: {told}");
    }
}
