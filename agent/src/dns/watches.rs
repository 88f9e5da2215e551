//! What the name server reads: control's file, and the node's.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use super::{
    LINK_LOCAL,
    forward::upstreams::{self, Seen, Upstreams},
    names::{self, Names},
    zone::Zone,
};
use crate::files;

/// Between two looks whether a file is another one. A watch of the kernel's would be silent about a folder that was mounted over.
const LOOK: Duration = Duration::from_millis(100);

/// What the name server was told last.
pub type Known = Option<Arc<Names>>;

/// Reads control's file when it is another one. Returns when control of another build has come: whoever starts this process starts one of that build.
pub async fn names(
    folder: PathBuf,
    known: watch::Sender<Known>,
    zone: watch::Sender<Option<Arc<Zone>>>,
    mut listen: impl FnMut(&[Ipv4Addr]),
) {
    let mut before = None;
    let mut serial = 0;
    let mut told = String::new();
    loop {
        let of = folder.clone();
        let seen = files::reading(move || Ok(seen(&of))).await.ok().flatten();
        if seen.is_some() && seen != before {
            before = seen;
            let of = folder.clone();
            match files::reading(move || Names::read(&of)).await {
                Ok(names) => {
                    let names = Arc::new(names);
                    let build = known.borrow().as_ref().map(|names| names.build.clone());
                    if build.is_some_and(|build| build != names.build)
                        && names.build != env!("CARGO_PKG_VERSION")
                    {
                        tracing::info!(
                            "an agent of another build has come: making way for its name server"
                        );
                        return;
                    }
                    serial += 1;
                    let of = names.clone();
                    // Of many Services this takes a while, and questions are answered meanwhile.
                    let made = files::reading(move || Ok(Zone::new(&of, serial))).await;
                    if let Ok(made) = made {
                        zone.send_replace(Some(Arc::new(made)));
                    }
                    listen(&own(&names));
                    known.send_replace(Some(names));
                }
                Err(error) => tell(
                    &mut told,
                    format!(
                        "cannot read {}: {error}; the names from before stay",
                        names::path(&folder).display()
                    ),
                ),
            }
        }
        sleep(LOOK).await;
    }
}

/// Reads which servers the node asks when its files are others, for ever.
pub async fn servers(mut known: watch::Receiver<Known>, upstreams: watch::Sender<Arc<Upstreams>>) {
    let mut before: [Seen; 2] = [None; 2];
    let mut told = String::new();
    loop {
        if known.has_changed().is_ok_and(|changed| changed) {
            before = [None; 2];
        }
        let names = known.borrow_and_update().clone();
        let path = names.as_ref().map(|names| names.resolv_conf.as_str());
        let path = path.filter(|path| !path.is_empty());
        let path = PathBuf::from(path.unwrap_or("/etc/resolv.conf"));
        let of = path.clone();
        let looked = move || Ok(upstreams::files_of(&of).map(|file| upstreams::seen(&file)));
        if let Ok(seen) = files::reading(looked).await
            && seen != before
            && seen[0].is_some()
        {
            before = seen;
            let own = match &names {
                Some(names) => own(names),
                None => vec![LINK_LOCAL],
            };
            let own: Vec<IpAddr> = own.into_iter().map(IpAddr::from).collect();
            let of = path.clone();
            let read = files::reading(move || upstreams::read(&of, &own)).await;
            take(read, &path, &upstreams, &mut told);
        }
        sleep(LOOK).await;
    }
}

fn take(
    read: io::Result<Upstreams>,
    path: &Path,
    upstreams: &watch::Sender<Arc<Upstreams>>,
    told: &mut String,
) {
    let path = path.display();
    match read {
        // Somebody is writing it anew, or has lost the network.
        Ok(read) if read.servers.is_empty() && !upstreams.borrow().servers.is_empty() => {
            tell(
                told,
                format!("{path} names no servers; the name servers from before stay"),
            );
        }
        Ok(read) => {
            told.clear();
            upstreams.send_if_modified(|now| {
                let is_other = **now != read;
                if is_other {
                    tracing::info!(servers = ?read.servers, "other names are asked of these servers");
                    *now = Arc::new(read);
                }
                is_other
            });
        }
        Err(error) => tell(
            told,
            format!("cannot read {path}: {error}; the name servers from before stay"),
        ),
    }
}

/// Where this process listens.
fn own(names: &Names) -> Vec<Ipv4Addr> {
    let address = names.address.parse().ok();
    address.into_iter().chain([LINK_LOCAL]).collect()
}

fn tell(told: &mut String, what: String) {
    if *told != what {
        tracing::warn!("{what}");
        *told = what;
    }
}

fn seen(folder: &Path) -> Option<(Seen, u64)> {
    use std::os::unix::fs::MetadataExt;
    let path = names::path(folder);
    let metadata = fs::metadata(&path).ok()?;
    Some((upstreams::seen(&path), metadata.ino()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_without_servers_takes_none_away() {
        let one = Upstreams {
            servers: vec!["192.0.2.1:53".parse().unwrap()],
            ..Upstreams::default()
        };
        let (sender, now) = watch::channel(Arc::new(Upstreams::default()));
        let mut told = String::new();
        let path = Path::new("/etc/resolv.conf");
        take(Ok(one.clone()), path, &sender, &mut told);
        take(Ok(Upstreams::default()), path, &sender, &mut told);
        assert_eq!(**now.borrow(), one);
        assert!(told.contains("stay"), "{told}");
        take(
            Err(io::ErrorKind::NotFound.into()),
            path,
            &sender,
            &mut told,
        );
        assert_eq!(**now.borrow(), one);
    }
}
