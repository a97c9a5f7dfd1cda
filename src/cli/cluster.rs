//! The daemons that share the work, as `tidegate workers` shows them.
//!
//! Must never know: how they agree. Next: `admin.rs`.

use super::show::{Rows, Times};
use crate::grpc::pb;

/// A row per daemon. `wide`: the dead too, ids, and every partition with its fence.
pub fn shown(cluster: &pb::Cluster, wide: bool) -> String {
    let times = Times::new(wide);
    let mut header = vec!["DAEMON", "ALIVE", "STARTED", "LEASE ENDS", "PARTITIONS"];
    if wide {
        header.extend(["ID", "NUMBER:FENCE"]);
    }
    let mut rows = Rows::new(&header);
    for daemon in cluster.daemons.iter().filter(|d| wide || d.alive) {
        let here = if daemon.id == cluster.daemon_id { " (this one)" } else { "" };
        let mut cells = vec![
            format!("{}{here}", daemon.name),
            if daemon.alive { "yes" } else { "NO" }.to_owned(),
            times.show(daemon.start_time.as_ref()),
            times.show(daemon.heartbeat_end_time.as_ref()),
            counts(daemon, cluster.partition_count),
        ];
        if wide {
            cells.extend([daemon.id.clone(), fences(daemon)]);
        }
        rows.add(cells);
    }
    let dead = cluster.daemons.iter().filter(|d| !d.alive).count();
    let mut text = rows.text();
    if dead > 0 && !wide {
        text.push_str(&format!("\nand {dead} that ended within a day (-o wide shows them)"));
    }
    text
}

/// `crm 22/64, erp 21/64`.
fn counts(daemon: &pb::ClusterDaemon, of: i32) -> String {
    let held = daemon.partitions.iter().map(|p| format!("{} {}/{of}", p.provider, p.partitions.len()));
    held.collect::<Vec<_>>().join(", ")
}

/// `crm 3:17 4:17`.
fn fences(daemon: &pb::ClusterDaemon) -> String {
    let all = daemon.partitions.iter().map(|held| {
        let each = held.partitions.iter().map(|p| format!(" {}:{}", p.number, p.fence)).collect::<String>();
        format!("{}{each}", held.provider)
    });
    all.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(name: &str, alive: bool, partitions: &[(i32, i64)]) -> pb::ClusterDaemon {
        let held = pb::HeldPartitions {
            provider: "crm".to_owned(),
            partitions: partitions.iter().map(|&(number, fence)| pb::Partition { number, fence }).collect(),
        };
        pb::ClusterDaemon {
            id: format!("id-{name}"),
            name: name.to_owned(),
            alive,
            partitions: if partitions.is_empty() { Vec::new() } else { vec![held] },
            ..pb::ClusterDaemon::default()
        }
    }

    #[test]
    fn the_living_are_counted_and_wide_shows_every_fence_and_the_dead() {
        let cluster = pb::Cluster {
            daemon_id: "id-d2".to_owned(),
            daemons: vec![
                daemon("d1", true, &[(3, 17), (4, 9)]),
                daemon("d2", true, &[(5, 1)]),
                daemon("d3", false, &[]),
            ],
            partition_count: 64,
            limiter_fault: String::new(),
        };
        let text = shown(&cluster, false);
        assert!(text.contains("crm 2/64") && text.contains("d2 (this one)") && !text.contains("d3"), "{text}");
        assert!(text.ends_with("and 1 that ended within a day (-o wide shows them)"), "{text}");
        let wide = shown(&cluster, true);
        assert!(wide.contains("crm 3:17 4:9") && wide.contains("d3") && wide.contains("NO"), "{wide}");
    }
}
