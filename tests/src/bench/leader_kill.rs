//! `leader-kill`: how long no write is acknowledged when the leader dies.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use barge_client::{
    channel::{ChannelOptions, channel},
    config::Config,
    tls,
    v1::{ApplyRequest, Namespace, Object, ObjectMeta, api_client::ApiClient, object},
};
use tonic::transport::Channel;

use super::report::{Row, milliseconds};
use crate::Managers;

const RUNS: usize = 20;
const MANAGERS: usize = 3;
const ATTEMPT: Duration = Duration::from_millis(250);
const DEADLINE: Duration = Duration::from_secs(60);

/// Kills whoever leads, writes through the survivors until one write is acknowledged, starts the killed one again.
///
/// # Errors
/// When no write succeeds within a minute.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut managers = Managers::up(MANAGERS);
    let mut gaps = Vec::with_capacity(RUNS);
    for run in 0..RUNS {
        let leader = managers.leader();
        let survivors: Vec<_> = (0..MANAGERS).filter(|index| *index != leader).collect();
        let channels = runtime.block_on(async {
            let addresses = survivors.iter().map(|index| managers.address(*index));
            addresses
                .map(|address| connect(&managers.config(), &address))
                .collect::<anyhow::Result<Vec<_>>>()
        })?;
        runtime.block_on(write_until_acknowledged(
            &channels,
            &format!("before-{run}"),
        ))?;
        let start = Instant::now();
        managers.kill(leader);
        runtime.block_on(write_until_acknowledged(&channels, &format!("after-{run}")))?;
        gaps.push(milliseconds(start.elapsed()));
        managers.start(leader, &[]);
        managers.wait_until_caught_up();
    }
    Ok(vec![Row::least("leader-kill", "ms", &gaps)])
}

fn connect(config: &Path, address: &str) -> anyhow::Result<Channel> {
    let config = Config::load(config)?;
    let identity = config.context(None)?.identity()?;
    channel(
        address,
        tls::client_config(&identity)?,
        &ChannelOptions::default(),
    )
    .context("connect")
}

async fn write_until_acknowledged(channels: &[Channel], name: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    for attempt in 0_usize.. {
        let channel = channels[attempt % channels.len()].clone();
        match tokio::time::timeout(ATTEMPT, write(channel, name.to_owned())).await {
            Ok(Ok(())) => break,
            Ok(Err(status)) if start.elapsed() > DEADLINE => {
                bail!("no write within {DEADLINE:?}: {status}")
            }
            // A refusal at once would otherwise spin and take the processor from the election.
            Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(_) if start.elapsed() > DEADLINE => bail!("no write within {DEADLINE:?}"),
            Err(_) => {}
        }
    }
    Ok(())
}

async fn write(channel: Channel, name: String) -> Result<(), tonic::Status> {
    let metadata = Some(ObjectMeta {
        name,
        ..Default::default()
    });
    let namespace = Namespace {
        metadata,
        ..Default::default()
    };
    let object = Object {
        kind: Some(object::Kind::Namespace(namespace)),
    };
    ApiClient::new(channel)
        .apply(ApplyRequest {
            objects: vec![object],
            ..Default::default()
        })
        .await?;
    Ok(())
}
