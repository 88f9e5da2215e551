//! `reads`: reads a second of one of a thousand values of 1 KiB, the same load for Barge and for etcd, spread over their three
//! members: linearizable ones, and those that any member answers from what it has (`stale`, which etcd calls serializable).

use barge_client::v1::{GetRequest, Kind, api_client::ApiClient};
use tonic::{Status, transport::Channel};

use super::{
    etcd::{self, Etcd},
    load::{self, CONNECTIONS, VALUE},
    report::Row,
};
use crate::{Cluster, eventually, raw};

const VALUES: usize = 1_000;

/// Measures both, one after the other, for each number of clients and each kind of read.
///
/// # Errors
/// When a read fails.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let cluster = Cluster::up("reads", 3, 0);
    let addresses: Vec<_> = cluster.layout().managers;
    let etcd = Etcd::start()?;
    etcd.wait(&runtime);
    let (barge, peers) = runtime.block_on(async {
        let (mut barge, mut peers) = (Vec::new(), Vec::new());
        for number in 0..CONNECTIONS {
            let manager = &addresses[number % addresses.len()].address;
            barge.extend(raw::channels(cluster.config(), manager, 1)?);
            peers.push(etcd.connect(u16::try_from(number % 3)?).await?);
        }
        for number in 0..VALUES {
            let key = key(number);
            raw::apply(
                barge[0].clone(),
                vec![raw::namespace(&key, raw::random(VALUE))],
            )
            .await?;
            etcd::put(&peers[0], key.into_bytes(), raw::random(VALUE).into_bytes()).await?;
        }
        anyhow::Ok((barge, peers))
    })?;
    eventually("all members have all values", || {
        runtime.block_on(async {
            for (ours, theirs) in barge.iter().zip(&peers) {
                let last = key(VALUES - 1);
                get(ours.clone(), last.clone(), true)
                    .await
                    .and(etcd::get(theirs, last.into_bytes(), true).await)
                    .map_err(|status| status.to_string())?;
            }
            Ok(())
        })
    });

    let mut rows = Vec::new();
    for (name, stale) in [("reads", false), ("stale reads", true)] {
        for clients in load::clients()? {
            let ours = load::run(&barge, clients, move |channel, of| async move {
                get(channel, drawn(&of), stale).await
            });
            let ours = runtime.block_on(ours)?;
            let theirs = load::run(&peers, clients, move |channel, of| async move {
                etcd::get(&channel, drawn(&of).into_bytes(), stale).await
            });
            let theirs = runtime.block_on(theirs)?;
            rows.extend(load::rows(name, "reads/s", clients, &[ours], &[theirs]));
        }
    }
    Ok(rows)
}

fn key(number: usize) -> String {
    format!("value-{number}")
}

/// One of the values, another one for every request.
fn drawn(request: &str) -> String {
    let sum: usize = request.bytes().fold(7, |sum: usize, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    key(sum % VALUES)
}

async fn get(channel: Channel, name: String, stale: bool) -> Result<(), Status> {
    let request = GetRequest {
        kind: Kind::Namespace.into(),
        name,
        stale,
        ..GetRequest::default()
    };
    ApiClient::new(channel).get(request).await.map(drop)
}
