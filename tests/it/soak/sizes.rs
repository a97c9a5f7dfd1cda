//! How large everything is, by name; and whether it went on growing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sqlx::{PgConnection, Row};

#[derive(Clone, Debug, Default)]
pub struct Sizes {
    bytes: BTreeMap<String, u64>,
    /// What else there is to say, as dead rows.
    notes: String,
}

impl Sizes {
    pub fn add(&mut self, name: &str, bytes: u64) {
        *self.bytes.entry(name.to_owned()).or_default() += bytes;
    }

    fn sum(&self) -> u64 {
        self.bytes.values().sum()
    }

    /// What was larger in the last five measurements than in the first `warm`, by more than `growth_max` and than what
    /// is small. Names in brackets are told but not judged: a Redis keeps the last answers to each daemon for a day of its
    /// own clock, and here one is started each minute.
    pub fn grown(seen: &[Sizes], warm: usize, growth_max: f64, small: u64) -> Vec<String> {
        let (early, late) = seen.split_at(warm.min(seen.len()));
        let late = &late[late.len().saturating_sub(5)..];
        let names: BTreeSet<&String> = seen.iter().flat_map(|sizes| sizes.bytes.keys()).collect();
        let most = |of: &[Sizes], name: &str| of.iter().filter_map(|s| s.bytes.get(name)).max().copied().unwrap_or(0);
        let mut findings = Vec::new();
        for name in names.into_iter().filter(|name| !name.starts_with('(')) {
            let (before, after) = (most(early, name), most(late, name));
            if after > small && after as f64 > before as f64 * growth_max {
                findings.push(format!("{name}: {} KiB, then {} KiB", before >> 10, after >> 10));
            }
        }
        findings
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB in all;", self.sum() >> 10)?;
        self.bytes.iter().try_for_each(|(name, bytes)| write!(f, " {name} {}", bytes >> 10))?;
        f.write_str(&self.notes)
    }
}

/// Tables with their indexes. The days of finished jobs are one; `days` gathers those that there were.
pub async fn of_postgres(conn: &mut PgConnection, days: &mut BTreeSet<String>) -> Sizes {
    let ask = "select c.relname::text, pg_total_relation_size(c.oid), pg_relation_size(c.oid), \
               coalesce(s.n_dead_tup, 0), coalesce(s.n_tup_upd, 0), coalesce(s.n_tup_hot_upd, 0) \
               from pg_class as c left join pg_stat_user_tables as s on s.relid = c.oid \
               where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace order by 1";
    let (mut sizes, mut there) = (Sizes::default(), 0);
    for row in sqlx::query(ask).fetch_all(conn).await.unwrap() {
        let (name, total, heap): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let (dead, updated, hot): (i64, i64, i64) = (row.get(3), row.get(4), row.get(5));
        let is_day = name.starts_with("finished_day_");
        sizes.add(if is_day { "finished_days" } else { &name }, total.unsigned_abs());
        if is_day {
            there += 1;
            days.insert(name);
        } else if total > 1 << 20 || updated > 1_000 {
            let hot = if updated > 0 { hot * 100 / updated } else { 100 };
            sizes.notes += &format!("; {name}: heap {} KiB, {dead} dead, {hot} % hot", heap >> 10);
        }
    }
    sizes.notes += &format!("; {there} days");
    sizes
}

#[test]
fn growth_is_told_from_being_full() {
    let of = |kib: u64| {
        let mut sizes = Sizes::default();
        sizes.add("job", kib << 10);
        sizes.add("(resident)", kib << 20);
        sizes
    };
    let grown = |kib: &[u64]| Sizes::grown(&kib.iter().map(|&k| of(k)).collect::<Vec<_>>(), 5, 1.1, 512 << 10).len();
    assert_eq!(grown(&[100, 900, 1_000, 1_000, 1_000, 1_000, 1_090, 900]), 0);
    assert_eq!(grown(&[100, 900, 1_000, 1_000, 1_000, 1_000, 1_000, 1_110]), 1);
    assert_eq!(grown(&[1, 1, 1, 1, 1, 500]), 0);
}
