//! The figures of the form of many daemons, one daemon and both servers on this machine, each beside its ceiling.
//!
//! Each drain has servers of its own, so that no backlog of another measurement stands before it.
//! Next: `cluster_ceilings`, `permits`.

use super::super::exit::Error;
use super::super::output::Output;
use super::ceilings::{echo, posts};
use super::daemon::{Daemon, metered};
use super::drain::drained;
use super::enqueue::{bulk, pause, stream, unary};
use super::servers::Servers;
use super::{Figure, cluster_ceilings, permits, print};
use crate::simulator::{Simulator, SimulatorConfig};

pub async fn measure(servers: &Servers, jobs: u32, output: &Output) -> Result<Vec<Figure>, Error> {
    let jobs = u64::from(jobs);
    let show = |figures: Vec<Figure>| figures.iter().try_for_each(|figure| print(output, figure));
    show(vec![echo(jobs).await?, Figure::new("ceiling: reqwest alone, POST, 64 in flight", posts(jobs).await?, "/s")])?;
    show(cluster_ceilings::postgres(servers, jobs).await?)?;
    show(cluster_ceilings::redis(servers, jobs).await?)?;
    show(permits::measure(servers).await?)?;
    let provider = Simulator::start(SimulatorConfig::bare()).await.map_err(|e| Error::failed(e.to_string()))?;
    let daemon = Daemon::start_on(Some(servers), &metered(&provider.base_url())).await?;
    pause(&daemon).await?;
    // On an operation that is not drained below.
    show(unary(&daemon, "coalesce", jobs).await?)?;
    let took = bulk(&daemon, "coalesce", false, jobs * 2).await?;
    show(vec![Figure::rate("EnqueueJobs of 1,000, 4 at once", jobs * 2, took)])?;
    let took = stream(&daemon, "coalesce", false, jobs * 2).await?;
    show(vec![Figure::rate("EnqueueStream of 1,000", jobs * 2, took)])?;
    daemon.stop().await;
    for (name, operation, jobs) in
        [("drain, single lane, a Redis permit each", "post", jobs), ("drain, batch lane of 1,000", "many", jobs * 5)]
    {
        let servers = Servers::start().await?;
        let daemon = Daemon::start_on(Some(&servers), &metered(&provider.base_url())).await?;
        let took = drained(&daemon, operation, jobs).await?;
        show(vec![
            Figure::rate(name, jobs, took),
            Figure::new("memory of the daemon after that", daemon.memory_mb(), "MB"),
        ])?;
        daemon.stop().await;
    }
    provider.stop().await;
    Ok(Vec::new())
}
