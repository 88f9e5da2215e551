//! Network namespaces that outlive whoever made them.

use std::{
    fs::{self, File},
    io,
    path::Path,
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::statfs,
};
use rtnetlink::LinkUnspec;
use tokio::net::TcpSocket;

/// The magic number of the file system that namespaces are on.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// What a container may do without privileges: ping, and listen on any port of its own network.
const SYSCTLS: [(&str, &str); 2] = [
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
];

/// Whether a namespace is pinned at `path`; not after a boot.
pub fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| {
        #[allow(clippy::unnecessary_cast)]
        let kind = found.filesystem_type().0 as i64;
        kind == NSFS_MAGIC
    })
}

/// Pins a new namespace, with its loopback up, at `path`. Blocks.
pub fn pin(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::create(path)?;
    // A thread that changes its namespace is good for nothing else afterwards.
    thread::scope(|scope| {
        let maker = thread::Builder::new().name("netns".into());
        let made = maker.spawn_scoped(scope, || make(path))?;
        made.join().unwrap_or_else(|_| {
            Err(io::Error::other(
                "the thread that makes a network namespace panicked",
            ))
        })
    })
}

fn make(path: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    for (file, value) in SYSCTLS {
        match fs::write(file, value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let loopback = LinkUnspec::new_with_index(1).up().build();
        let up = handle.link().set(loopback).execute().await;
        connection.abort();
        up.map_err(io::Error::other)
    })?;
    let none = None::<&str>;
    mount(
        Some("/proc/thread-self/ns/net"),
        path,
        none,
        MsFlags::MS_BIND,
        none,
    )?;
    Ok(())
}

/// Pins the namespace of the calling thread at `path`: the machine's. Blocks.
pub fn pin_own(path: &Path) -> io::Result<()> {
    if is_pinned(path) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::create(path)?;
    let none = None::<&str>;
    let own = Some("/proc/thread-self/ns/net");
    Ok(mount(own, path, none, MsFlags::MS_BIND, none)?)
}

/// Sockets in the namespace that is pinned at `path`, for IPv4 and, if it has that, IPv6. They stay there whoever uses them. Blocks.
pub fn sockets(path: &Path) -> io::Result<(TcpSocket, Option<TcpSocket>)> {
    if !is_pinned(path) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let inside = File::open(path)?;
    // A thread that changes its namespace is good for nothing else afterwards.
    thread::scope(|scope| {
        let maker = thread::Builder::new().name("netns".into());
        let made = maker.spawn_scoped(scope, || {
            setns(inside, CloneFlags::CLONE_NEWNET)?;
            Ok((TcpSocket::new_v4()?, TcpSocket::new_v6().ok()))
        })?;
        made.join().unwrap_or_else(|_| {
            Err(io::Error::other(
                "the thread that enters a network namespace panicked",
            ))
        })
    })
}

/// Removes the pin; the namespace goes with its last process. That there is none is success.
pub fn unpin(path: &Path) -> io::Result<()> {
    // Several, should it ever have been pinned twice.
    while is_pinned(path) {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    crate::files::remove_if_there(path)
}
