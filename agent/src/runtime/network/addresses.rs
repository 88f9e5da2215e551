//! Addresses that pods have, from the node's range: a file for each, named by the address, whose first line is the pod's uid.
//!
//! This is what CNI's `host-local` keeps. So pods that it gave an address to are known here, and its own DEL gives their addresses back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ipnet::{IpNet, Ipv4Net};
use nix::fcntl::{Flock, FlockArg};

use crate::programmed::Programmed;

/// An address that was given back rests: rules of other nodes may still lead to it. So long at least,
const REST: Duration = Duration::from_secs(30);
/// and until all live nodes have the rules of that moment, which may take this long.
const LONGEST_REST: Duration = Duration::from_secs(600);

/// Who has which address. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Addresses {
    folder: PathBuf,
    given_back: Arc<Mutex<BTreeMap<Ipv4Addr, GivenBack>>>,
    programmed: Programmed,
}

/// What is known of an address that was given back. The one that was first is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct GivenBack {
    at: Instant,
    /// Of the rules that lead to it no more.
    revision: u64,
}

impl Addresses {
    /// Those in a folder.
    pub fn new(folder: PathBuf, programmed: Programmed) -> Self {
        Self {
            folder,
            programmed,
            given_back: Arc::default(),
        }
    }

    /// Gives a pod an address of the first of these ranges that has one. Those after the one that was given out last come first. Blocks.
    ///
    /// `None` when all are taken.
    ///
    /// # Errors
    /// What the disk says.
    pub fn give(&self, ranges: &[IpNet], pod_uid: &str) -> io::Result<Option<IpAddr>> {
        fs::create_dir_all(&self.folder)?;
        let _lock = self.lock()?;
        let taken = self.taken()?;
        for range in ranges {
            // Pods have no addresses of IPv6 yet.
            let IpNet::V4(range) = range else { continue };
            if let Some(address) = self.next(*range, &taken) {
                let mut file = OpenOptions::new();
                let file = file.write(true).create_new(true);
                let note = format!("{pod_uid}\r\neth0");
                let written = file
                    .open(self.folder.join(address.to_string()))
                    .and_then(|mut file| file.write_all(note.as_bytes()));
                if let Err(error) = written {
                    // A note without its pod would be nobody's to remove.
                    crate::files::remove_if_there(&self.folder.join(address.to_string()))?;
                    return Err(error);
                }
                fs::write(self.last_file(), address.to_string())?;
                return Ok(Some(address.into()));
            }
        }
        Ok(None)
    }

    /// The free address that comes next, and the one that has rested longest when all others rest.
    fn next(&self, range: Ipv4Net, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let last = fs::read_to_string(self.last_file()).ok();
        let last: Option<Ipv4Addr> = last.and_then(|text| text.trim().parse().ok());
        // The first one is the node's own.
        let all = || {
            range
                .hosts()
                .skip(1)
                .filter(|address| !taken.contains(address))
        };
        let after = all().filter(|address| last.is_none_or(|last| *address > last));
        let before = all().filter(|address| last.is_some_and(|last| *address <= last));
        let mut given_back = self.given_back();
        given_back.retain(|_, given| {
            let age = given.at.elapsed();
            let is_everywhere = self.programmed.is_everywhere(given.revision);
            age < REST || (age < LONGEST_REST && !is_everywhere)
        });
        let mut in_order = after.chain(before);
        let rested = in_order.find(|address| !given_back.contains_key(address));
        rested.or_else(|| all().min_by_key(|address| given_back.get(address).copied()))
    }

    /// The addresses of a pod. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub fn of(&self, pod_uid: &str) -> io::Result<Vec<IpAddr>> {
        let mut found = Vec::new();
        for (address, file) in self.files()? {
            if self.holder(&file)?.as_deref() == Some(pod_uid) {
                found.push(address);
            }
        }
        Ok(found)
    }

    /// Takes a pod's addresses back. That it has none is success. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub fn take_back(&self, pod_uid: &str) -> io::Result<()> {
        for address in self.of(pod_uid)? {
            if let IpAddr::V4(address) = address {
                let given = GivenBack {
                    at: Instant::now(),
                    revision: self.programmed.assigned(),
                };
                self.given_back().insert(address, given);
            }
            crate::files::remove_if_there(&self.folder.join(address.to_string()))?;
        }
        Ok(())
    }

    /// Takes back what pods have that are not here any more, and what a power cut left without a name. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub fn keep_only(&self, is_here: impl Fn(&str) -> bool) -> io::Result<()> {
        if self.files()?.is_empty() {
            return Ok(());
        }
        // Whoever gives out an address has the lock until the note says whose it is.
        let _lock = self.lock()?;
        for (_, file) in self.files()? {
            let holder = self.holder(&file)?;
            if holder.is_some_and(|uid| uid.is_empty() || !is_here(&uid)) {
                crate::files::remove_if_there(&file)?;
            }
        }
        Ok(())
    }

    fn taken(&self) -> io::Result<BTreeSet<Ipv4Addr>> {
        let files = self.files()?.into_iter();
        Ok(files
            .filter_map(|(address, _)| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })
            .collect())
    }

    fn files(&self) -> io::Result<Vec<(IpAddr, PathBuf)>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            // Others are the lock and the address that was given out last.
            if let Ok(address) = entry.file_name().to_string_lossy().parse() {
                files.push((address, entry.path()));
            }
        }
        Ok(files)
    }

    /// `None` when the note has gone meanwhile.
    fn holder(&self, file: &Path) -> io::Result<Option<String>> {
        let bytes = crate::files::read_if_there(file)?;
        let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(text.map(|text| text.lines().next().unwrap_or_default().trim().to_owned()))
    }

    fn last_file(&self) -> PathBuf {
        self.folder.join("last_reserved_ip.0")
    }

    /// The plugin takes the same lock.
    fn lock(&self) -> io::Result<Flock<File>> {
        let mut file = OpenOptions::new();
        let file = file.create(true).truncate(false).write(true);
        let file = file.open(self.folder.join("lock"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    }

    fn given_back(&self) -> std::sync::MutexGuard<'_, BTreeMap<Ipv4Addr, GivenBack>> {
        self.given_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn addresses() -> (tempfile::TempDir, Addresses) {
        let folder = tempfile::tempdir().unwrap();
        let addresses = Addresses::new(folder.path().join("barge"), Programmed::default());
        (folder, addresses)
    }

    fn give(addresses: &Addresses, range: &str, uid: &str) -> Option<String> {
        let given = addresses.give(&[range.parse().unwrap()], uid).unwrap();
        given.map(|address| address.to_string())
    }

    #[test]
    fn each_pod_has_its_own_and_one_that_is_given_back_rests() {
        let (_folder, addresses) = addresses();
        let give = |uid| give(&addresses, "10.244.1.0/29", uid).unwrap();
        assert_eq!(
            (give("a"), give("b")),
            ("10.244.1.2".into(), "10.244.1.3".into())
        );
        addresses.take_back("a").unwrap();
        addresses.take_back("a").unwrap();
        assert_eq!(give("c"), "10.244.1.4");
        assert_eq!(
            (give("d"), give("e")),
            ("10.244.1.5".into(), "10.244.1.6".into())
        );
        // Only those that rest are left: the one that has rested longest.
        addresses.take_back("e").unwrap();
        assert_eq!(give("f"), "10.244.1.2");
        assert_eq!(
            addresses.of("f").unwrap(),
            ["10.244.1.2".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn an_address_rests_until_every_node_has_forgotten_it() {
        let (_folder, addresses) = addresses();
        let range = "10.244.1.0/29";
        let ago = |addresses: &Addresses, seconds| {
            let mut given_back = addresses.given_back();
            let first = given_back.values_mut().next().unwrap();
            first.at = Instant::now() - Duration::from_secs(seconds);
        };
        let rests = |addresses: &Addresses| {
            let first = "10.244.1.2".parse().unwrap();
            addresses.next(range.parse().unwrap(), &BTreeSet::new()) != Some(first)
        };
        give(&addresses, range, "a").unwrap();
        addresses.programmed.begin(7);
        addresses.take_back("a").unwrap();
        fs::remove_file(addresses.last_file()).unwrap();
        addresses.programmed.told(6);
        ago(&addresses, 31);
        assert!(rests(&addresses), "a node may still send to it");
        addresses.programmed.told(7);
        assert!(!rests(&addresses));
        // Nodes that say nothing, for long.
        give(&addresses, range, "b").unwrap();
        addresses.programmed.begin(9);
        addresses.take_back("b").unwrap();
        fs::remove_file(addresses.last_file()).unwrap();
        ago(&addresses, 500);
        assert!(rests(&addresses));
        ago(&addresses, 601);
        assert!(!rests(&addresses));
    }

    #[test]
    fn a_note_without_a_name_is_nobodys() {
        let (_folder, addresses) = addresses();
        let address = give(&addresses, "10.244.1.0/30", "a").unwrap();
        fs::write(addresses.folder.join(address), "").unwrap();
        assert_eq!(give(&addresses, "10.244.1.0/30", "b"), None);
        addresses.keep_only(|_| true).unwrap();
        assert!(give(&addresses, "10.244.1.0/30", "b").is_some());
    }

    #[test]
    fn a_range_without_room_gives_nothing() {
        let (_folder, addresses) = addresses();
        assert!(give(&addresses, "10.244.1.0/30", "a").is_some());
        assert_eq!(give(&addresses, "10.244.1.0/30", "b"), None);
        assert_eq!(give(&addresses, "fd00::/120", "b"), None);
    }

    #[test]
    fn what_the_plugin_gave_is_known_and_what_nobody_has_comes_back() {
        let (folder, addresses) = addresses();
        let noted = folder.path().join("barge");
        fs::create_dir_all(&noted).unwrap();
        fs::write(noted.join("10.244.1.2"), "old\r\neth0").unwrap();
        fs::write(noted.join("10.244.1.3"), "gone\r\neth0").unwrap();
        fs::write(noted.join("last_reserved_ip.0"), "10.244.1.3").unwrap();
        assert_eq!(
            give(&addresses, "10.244.1.0/29", "new").unwrap(),
            "10.244.1.4"
        );
        addresses.keep_only(|uid| uid != "gone").unwrap();
        assert_eq!(addresses.of("gone").unwrap(), Vec::<IpAddr>::new());
        assert_eq!(addresses.of("old").unwrap().len(), 1);
    }
}
