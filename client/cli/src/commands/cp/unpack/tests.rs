//! Archives, honest ones and hostile ones, unpacked into a temporary folder.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;

/// An entry: its type, its name as it stands in the archive, its mode, and its content or the name that it leads to.
type Made<'a> = (EntryType, &'a str, u32, &'a str);

const DIR: EntryType = EntryType::Directory;
const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;

/// An archive, with whatever names: the library's own functions would refuse some.
fn archive(entries: &[Made<'_>]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (kind, name, mode, text) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        let content = if *kind == FILE { *text } else { "" };
        header.set_size(content.len() as u64);
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        if *kind != FILE {
            fields.linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_cksum();
        archive.append(&header, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Unpacks in pieces of a size that fits nothing; returns the entries that were refused.
fn unpacked(archive: &[u8], asked: Option<&str>, to: &Destination) -> Result<Vec<String>> {
    let (sender, receiver) = super::super::pipe::pipe();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for piece in archive.chunks(777) {
                if sender.blocking_send(piece.to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut refused = Vec::new();
        let count = unpack(receiver, asked, to, |path, reason| {
            refused.push(format!("{}: {reason}", path.display()));
        })?;
        assert_eq!(count, refused.len() as u64);
        Ok(refused)
    })
}

/// A folder, in it the destination `dst`, and beside that what must not be touched.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("dst")).unwrap();
        fs::create_dir(place.path().join("beside")).unwrap();
        fs::write(place.path().join("beside/kept"), "kept").unwrap();
        Self(place)
    }

    fn to(&self, name: Option<&str>) -> Destination {
        Destination {
            base: self.path("dst"),
            name: name.map(Into::into),
            is_folder: false,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Everything that is there, with the contents of files and what links lead to.
    fn all(&self) -> Vec<String> {
        let (mut all, mut waiting) = (Vec::new(), vec![self.0.path().to_owned()]);
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let kind = fs::symlink_metadata(&path).unwrap().file_type();
                let name = path.strip_prefix(self.0.path()).unwrap().display();
                if kind.is_dir() {
                    all.push(format!("{name}/"));
                    waiting.push(path);
                } else if kind.is_symlink() {
                    let target = fs::read_link(&path).unwrap();
                    all.push(format!("{name} -> {}", target.display()));
                } else {
                    all.push(format!("{name}: {}", fs::read_to_string(&path).unwrap()));
                }
            }
        }
        all.retain(|it| !it.starts_with("beside") && it != "dst/");
        all.sort();
        all
    }

    fn check_beside(&self) {
        let beside: Vec<_> = fs::read_dir(self.path("beside")).unwrap().collect();
        assert_eq!(beside.len(), 1, "{beside:?}");
        assert_eq!(
            fs::read_to_string(self.path("beside/kept")).unwrap(),
            "kept"
        );
        assert_eq!(fs::read_dir(self.0.path()).unwrap().count(), 2);
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.path(path)).unwrap().permissions().mode() & 0o7777
    }
}

#[test]
fn a_folder_comes_with_permissions_and_links() {
    let place = Place::new();
    let archive = archive(&[
        (DIR, "src/", 0o750, ""),
        (DIR, "src/closed/", 0o500, ""),
        (FILE, "src/closed/run", 0o4755, "#!"),
        (FILE, "src/text", 0o640, "text"),
        (LINK, "src/closed/up", 0o777, "../text"),
        (HARD, "src/same", 0o640, "src/text"),
        (FILE, "src/new/inner", 0o600, "x"),
    ]);
    let refused = unpacked(&archive, Some("src"), &place.to(Some("copy"))).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(
        place.all(),
        [
            "dst/copy/",
            "dst/copy/closed/",
            "dst/copy/closed/run: #!",
            "dst/copy/closed/up -> ../text",
            "dst/copy/new/",
            "dst/copy/new/inner: x",
            "dst/copy/same: text",
            "dst/copy/text: text",
        ]
    );
    assert_eq!(place.mode("dst/copy"), 0o750);
    assert_eq!(place.mode("dst/copy/closed"), 0o500);
    // No program runs as another user for having been copied.
    assert_eq!(place.mode("dst/copy/closed/run"), 0o755);
    assert_eq!(place.mode("dst/copy/text"), 0o640);
    let inode = |path: &str| fs::metadata(place.path(path)).unwrap().ino();
    assert_eq!(inode("dst/copy/text"), inode("dst/copy/same"));
    place.check_beside();
}

#[test]
fn a_second_copy_replaces_files_and_keeps_what_else_is_there() {
    let place = Place::new();
    let once = archive(&[(DIR, "./", 0o755, ""), (FILE, "./a", 0o644, "one")]);
    let again = archive(&[(DIR, "./", 0o700, ""), (FILE, "./a", 0o600, "two")]);
    unpacked(&once, None, &place.to(None)).unwrap();
    fs::write(place.path("dst/own"), "own").unwrap();
    let mode = place.mode("dst");
    unpacked(&again, None, &place.to(None)).unwrap();
    assert_eq!(place.all(), ["dst/a: two", "dst/own: own"]);
    assert_eq!((place.mode("dst/a"), place.mode("dst")), (0o600, mode));
}

#[test]
fn nothing_is_written_outside() {
    for (entries, refused) in [
        (
            vec![(FILE, "src/../../beside/kept", 0o644, "bad")],
            LEADS_OUT,
        ),
        (vec![(FILE, "../beside/kept", 0o644, "bad")], LEADS_OUT),
        (vec![(FILE, "/beside/kept", 0o644, "bad")], LEADS_OUT),
        (vec![(FILE, "other", 0o644, "bad")], NOT_ASKED),
        (vec![(LINK, "src/l", 0o777, "../../beside")], LINK_OUT),
        (vec![(LINK, "src/l", 0o777, "..")], LINK_OUT),
        (vec![(LINK, "src/l", 0o777, "/etc")], LINK_OUT),
        // The first leads up to a place from which a second ".." would lead out.
        (
            vec![
                (LINK, "src/d/l", 0o777, ".."),
                (LINK, "src/m", 0o777, "d/l/../../beside"),
            ],
            LINK_OUT,
        ),
        (vec![(HARD, "src/h", 0o644, "../beside/kept")], LINK_OUT),
        (vec![(HARD, "src/h", 0o644, "beside/kept")], LINK_OUT),
        (vec![(HARD, "src/h", 0o644, "/etc/passwd")], LINK_OUT),
        (vec![(EntryType::Fifo, "src/f", 0o644, "")], SPECIAL),
        (vec![(EntryType::Char, "src/c", 0o644, "")], SPECIAL),
        // In place of the folder that was copied.
        (vec![(LINK, "src", 0o777, "../beside")], NOT_ASKED),
        (vec![(FILE, "src", 0o777, "x")], NOT_ASKED),
    ] {
        let place = Place::new();
        let mut all = vec![(DIR, "src/", 0o755, "")];
        all.extend(entries);
        all.push((FILE, "src/last", 0o644, "good"));
        let told = unpacked(&archive(&all), Some("src"), &place.to(Some("src"))).unwrap();
        assert_eq!(told.len(), 1, "{all:?}: {told:?}");
        assert!(told[0].ends_with(refused), "{all:?}: {told:?}");
        // The rest comes.
        assert_eq!(fs::read(place.path("dst/src/last")).unwrap(), b"good");
        place.check_beside();
    }
}

#[test]
fn nothing_is_written_through_a_link() {
    // One of the archive, and ones that were there.
    for (there, entries) in [
        (
            None,
            vec![(LINK, "src/l", 0o777, "d"), (FILE, "src/l/x", 0o644, "bad")],
        ),
        (Some("src/l"), vec![(FILE, "src/l/kept", 0o644, "bad")]),
        (Some("src/l"), vec![(DIR, "src/l/", 0o777, "")]),
        (Some("src"), vec![(FILE, "src/kept", 0o644, "bad")]),
    ] {
        let place = Place::new();
        if let Some(there) = there {
            let link = place.path("dst").join(there);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(place.path("beside"), link).unwrap();
        }
        let mut all = vec![(DIR, "src/", 0o755, ""), (DIR, "src/d/", 0o755, "")];
        all.extend(entries);
        let error = unpacked(&archive(&all), Some("src"), &place.to(Some("src"))).unwrap_err();
        assert!(format!("{error:#}").contains("a link to one"), "{error:#}");
        place.check_beside();
    }
    // A link in the place of a file goes, and not what it leads to.
    let place = Place::new();
    symlink(place.path("beside/kept"), place.path("dst/a")).unwrap();
    let archive = archive(&[(DIR, "./", 0o755, ""), (FILE, "./a", 0o644, "new")]);
    unpacked(&archive, None, &place.to(None)).unwrap();
    assert_eq!(place.all(), ["dst/a: new"]);
    place.check_beside();
}

#[test]
fn a_hard_link_to_a_link_is_none() {
    let place = Place::new();
    let archive = archive(&[
        (DIR, "src/", 0o755, ""),
        (LINK, "src/a/b/l", 0o777, "../.."),
        (HARD, "src/m", 0o644, "src/a/b/l"),
    ]);
    assert!(unpacked(&archive, Some("src"), &place.to(Some("src"))).is_err());
    assert!(!place.path("dst/src/m").exists());
}

#[test]
fn a_file_has_the_new_name_and_follows_a_link_that_was_named() {
    let place = Place::new();
    let archive = archive(&[(FILE, "src", 0o755, "new")]);
    unpacked(&archive, Some("src"), &place.to(Some("renamed"))).unwrap();
    assert_eq!(place.all(), ["dst/renamed: new"]);
    assert_eq!(place.mode("dst/renamed"), 0o755);
    symlink("renamed", place.path("dst/link")).unwrap();
    fs::write(place.path("dst/renamed"), "something longer").unwrap();
    unpacked(&archive, Some("src"), &place.to(Some("link"))).unwrap();
    assert_eq!(place.all(), ["dst/link -> renamed", "dst/renamed: new"]);
    let folder = Destination {
        is_folder: true,
        ..place.to(Some("none"))
    };
    let told = unpacked(&archive, Some("src"), &folder).unwrap();
    assert!(told[0].ends_with(NO_FOLDER), "{told:?}");
}

#[test]
fn a_single_link_is_not_made_and_nothing_follows_it() {
    let place = Place::new();
    let archive = archive(&[
        (LINK, "src", 0o777, "../beside/kept"),
        (FILE, "src", 0o644, "bad"),
        (FILE, "src/x", 0o644, "good"),
    ]);
    let told = unpacked(&archive, Some("src"), &place.to(Some("src"))).unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].ends_with(ROOT_LINK), "{told:?}");
    place.check_beside();
}

#[test]
fn long_names_are_kept_and_endless_ones_are_not_read() {
    let place = Place::new();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let mut honest = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    honest
        .append_data(&mut header, format!("src/{long}"), &b"x"[..])
        .unwrap();
    let honest = honest.into_inner().unwrap();
    unpacked(&honest, Some("src"), &place.to(Some("src"))).unwrap();
    assert_eq!(fs::read(place.path("dst/src").join(&long)).unwrap(), b"x");

    let mut endless = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(8 << 20);
    header.set_cksum();
    let name = vec![b'a'; 8 << 20];
    endless.append(&header, &name[..]).unwrap();
    let endless = endless.into_inner().unwrap();
    let error = unpacked(&endless, Some("src"), &place.to(Some("src"))).unwrap_err();
    assert!(format!("{error:#}").contains("too long"), "{error:#}");

    let deep = format!("src/{}f", "d/".repeat(40));
    let mut path = String::from("src");
    for _ in 0..200 {
        path.push_str("/d");
    }
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    let mut nested = Builder::new(Vec::new());
    nested
        .append_data(&mut header.clone(), &deep, &b""[..])
        .unwrap();
    nested.append_data(&mut header, &path, &b""[..]).unwrap();
    let nested = nested.into_inner().unwrap();
    let error = unpacked(&nested, Some("src"), &place.to(Some("src"))).unwrap_err();
    assert!(
        format!("{error:#}").contains("within each other"),
        "{error:#}"
    );
}

#[test]
fn an_archive_that_is_cut_off_is_an_error() {
    let place = Place::new();
    let mut whole = archive(&[(DIR, "src/", 0o755, ""), (FILE, "src/a", 0o644, "text")]);
    whole.truncate(512 + 512 + 2);
    assert!(unpacked(&whole, Some("src"), &place.to(Some("src"))).is_err());
}

#[test]
fn links_go_up_at_their_beginning_only() {
    for (depth, target, wanted) in [
        (0, "a", true),
        (0, "a/b/./c", true),
        (0, "..", false),
        (1, "../a", true),
        (1, "../../a", false),
        (3, "../../../a", true),
        (3, "a/../b", false),
        (3, "/a", false),
    ] {
        assert_eq!(stays(depth, Path::new(target)), wanted, "{depth} {target}");
    }
}
