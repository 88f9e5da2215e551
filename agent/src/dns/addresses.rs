//! Addresses on the loopback interface: this machine takes what is sent to them, wherever it comes from.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::address::{AddressAttribute, AddressScope},
};

/// The interface. Each network namespace has it.
const LOOPBACK: &str = "lo";

/// Adds these, and removes those of `before` that are not among them. What is so already is success.
///
/// # Errors
/// What the kernel says.
pub async fn set(
    wanted: &BTreeSet<Ipv4Addr>,
    before: &BTreeSet<Ipv4Addr>,
) -> Result<(), rtnetlink::Error> {
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|error| rtnetlink::Error::NamespaceError(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let done = change(&handle, wanted, before).await;
    connection.abort();
    done
}

async fn change(
    handle: &Handle,
    wanted: &BTreeSet<Ipv4Addr>,
    before: &BTreeSet<Ipv4Addr>,
) -> Result<(), rtnetlink::Error> {
    let links = handle.link().get().match_name(LOOPBACK.to_owned());
    let links: Vec<_> = links.execute().try_collect().await?;
    let Some(link) = links.first() else {
        return Err(rtnetlink::Error::NamespaceError(format!(
            "there is no {LOOPBACK}"
        )));
    };
    let index = link.header.index;
    let listed = handle.address().get().set_link_index_filter(index);
    let listed: Vec<_> = listed.execute().try_collect().await?;
    let mut there = BTreeSet::new();
    for message in listed {
        let local = message.attributes.iter().find_map(|it| match it {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        let Some(address) = local else { continue };
        there.insert(address);
        if before.contains(&address) && !wanted.contains(&address) {
            handle.address().del(message).execute().await?;
        }
    }
    for address in wanted.difference(&there) {
        let mut request = handle.address().add(index, (*address).into(), 32);
        // Never the sender's address of what this machine begins itself.
        request.message_mut().header.scope = AddressScope::Host;
        match request.execute().await {
            Err(rtnetlink::Error::NetlinkError(message))
                if message.raw_code() == -(nix::errno::Errno::EEXIST as i32) => {}
            added => added?,
        }
    }
    Ok(())
}
