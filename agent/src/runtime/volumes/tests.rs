#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

fn files(files: &[(&str, &str, u32)]) -> VolumeFiles {
    let files = files.iter().map(|(path, text, mode)| {
        let file = VolumeFile::new(text.as_bytes().to_vec(), *mode);
        ((*path).to_owned(), file)
    });
    files.collect()
}

fn names(folder: &Path) -> Vec<String> {
    let paths = pins::entries(folder).unwrap();
    let mut names: Vec<_> = paths
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn permissions(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_are_replaced_all_at_once_and_kept_when_they_are_the_same() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("config");
    let one = files(&[("a", "1", 0o644), ("b/c", "2", 0o400)]);
    atomic::write(&root, &one, None).unwrap();
    assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "1");
    assert_eq!(fs::read_to_string(root.join("b/c")).unwrap(), "2");
    assert_eq!(permissions(&root.join("b/c")), 0o400);
    assert_eq!(permissions(&root), 0o777);
    let first = fs::read_link(root.join("..data")).unwrap();
    atomic::write(&root, &one, None).unwrap();
    assert_eq!(fs::read_link(root.join("..data")).unwrap(), first);

    let two = files(&[("a", "one", 0o644)]);
    atomic::write(&root, &two, None).unwrap();
    let second = fs::read_link(root.join("..data")).unwrap();
    assert_ne!(second, first);
    assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "one");
    let left = [second.to_str().unwrap(), "..data", "a"];
    assert_eq!(names(&root), left, "nothing of the first set is left");
    atomic::write(&root, &VolumeFiles::new(), None).unwrap();
    assert_eq!(names(&root).len(), 2);
}

#[test]
fn no_file_is_written_out_of_its_volume() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("config");
    for path in [
        "../out",
        "a/../../out",
        "/out",
        "..",
        "..data",
        "..data/a",
        "",
        "./a",
    ] {
        let error = atomic::write(&root, &files(&[(path, "1", 0o644)]), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path:?}");
        assert!(!root.exists(), "{path:?}");
    }
    assert_eq!(names(folder.path()), [""; 0]);
}

/// What an agent that died left, and what somebody else did.
#[test]
fn files_that_are_not_as_they_should_be_are_mended() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("config");
    let wanted = files(&[("a", "1", 0o644), ("b/c", "2", 0o400)]);
    let outside = root.with_file_name("outside");
    fs::write(&outside, "not ours").unwrap();
    type Damage<'a> = &'a dyn Fn(&Path);
    let damages: [Damage<'_>; 8] = [
        &|root| fs::create_dir(root.join("..1")).unwrap(),
        &|root| symlink("..nowhere", root.join("..data_tmp")).unwrap(),
        &|root| fs::remove_file(root.join("..data")).unwrap(),
        &|root| fs::remove_file(root.join("a")).unwrap(),
        &|root| fs::write(root.join("..data/a"), "3").unwrap(),
        &|root| {
            fs::set_permissions(root.join("..data/a"), PermissionsExt::from_mode(0o600)).unwrap()
        },
        &|root| fs::write(root.join("..data/more"), "3").unwrap(),
        &|root| {
            fs::remove_file(root.join("a")).unwrap();
            symlink(root.with_file_name("outside"), root.join("a")).unwrap();
        },
    ];
    for (index, damage) in damages.iter().enumerate() {
        atomic::write(&root, &wanted, None).unwrap();
        damage(&root);
        atomic::write(&root, &wanted, None).unwrap();
        let set = fs::read_link(root.join("..data")).unwrap();
        let expected = [set.to_str().unwrap(), "..data", "a", "b"];
        assert_eq!(names(&root), expected, "{index}");
        assert_eq!(names(&root.join(set)), ["a", "b"], "{index}");
        assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "1", "{index}");
        assert_eq!(permissions(&root.join("a")), 0o644, "{index}");
    }
    assert_eq!(fs::read_to_string(&outside).unwrap(), "not ours");
    fs::remove_dir_all(&root).unwrap();
    fs::write(&root, "a file").unwrap();
    assert!(atomic::write(&root, &wanted, None).is_err());
}

/// Kubernetes' `SetVolumeOwnership`.
#[test]
fn volumes_belong_to_the_group_of_their_pod() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("config");
    let wanted = files(&[("b/c", "2", 0o400)]);
    atomic::write(&root, &wanted, Some(3000)).unwrap();
    let of = |path: &str| {
        let found = fs::metadata(root.join(path)).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    assert_eq!(of("b/c"), (0, 3000, 0o440));
    assert_eq!(of("b"), (0, 3000, 0o2755));
    assert_eq!(of(""), (0, 3000, 0o2777));
    let set = fs::read_link(root.join("..data")).unwrap();
    atomic::write(&root, &wanted, Some(3000)).unwrap();
    assert_eq!(fs::read_link(root.join("..data")).unwrap(), set);

    let disk = folder.path().join("disk");
    empty::on_disk(&disk, Some(3000)).unwrap();
    let found = fs::metadata(&disk).unwrap();
    assert_eq!((found.gid(), found.mode() & 0o7777), (3000, 0o2777));
    let made = subpath::open(&disk, "a/b", true).unwrap();
    let made = nix::sys::stat::fstat(&made).unwrap();
    assert_eq!((made.st_gid, made.st_mode & 0o7777), (3000, 0o2777));
}

#[test]
fn a_folder_of_the_containers_is_left_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("data");
    // Half made by an agent that died.
    fs::create_dir(folder.path().join("data.making")).unwrap();
    empty::on_disk(&disk, None).unwrap();
    assert_eq!(permissions(&disk), 0o777);
    fs::write(disk.join("a"), "kept").unwrap();
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o700)).unwrap();
    empty::on_disk(&disk, None).unwrap();
    assert_eq!(permissions(&disk), 0o700);
    assert_eq!(fs::read_to_string(disk.join("a")).unwrap(), "kept");
}

fn opened(root: &Path, sub_path: &str, create: bool) -> Result<String, String> {
    let found = subpath::open(root, sub_path, create).map_err(|error| error.to_string())?;
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
    let path = fs::read_link(link).unwrap();
    let path = path.strip_prefix(root.canonicalize().unwrap());
    Ok(path.map_or("outside".into(), |path| path.display().to_string()))
}

#[test]
fn no_subpath_leads_out_of_its_volume() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("volume");
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/file"), "").unwrap();
    fs::write(folder.path().join("secret"), "").unwrap();
    for (link, target) in [
        ("inside", "a/b"),
        ("a/up", "../a/file"),
        ("absolute", "/etc"),
        ("out", "../secret"),
        ("a/out", "../../secret"),
        ("loop", "loop"),
        ("dangling", "new/deep"),
        ("root", "a/.."),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    let outside = Err("it leads out of the volume".to_owned());
    for (path, expected) in [
        ("a/b", Ok("a/b".to_owned())),
        ("a/file", Ok("a/file".to_owned())),
        ("inside", Ok("a/b".to_owned())),
        ("a/up", Ok("a/file".to_owned())),
        ("./a//b/", Ok("a/b".to_owned())),
        ("root/a", Ok("a".to_owned())),
        ("absolute", outside.clone()),
        ("absolute/passwd", outside.clone()),
        ("out", outside.clone()),
        ("a/out", outside.clone()),
        ("..", outside.clone()),
        ("a/../../secret", outside.clone()),
    ] {
        assert_eq!(opened(&root, path, false), expected, "{path}");
        assert_eq!(opened(&root, path, true), expected, "{path}");
    }
    assert!(opened(&root, "loop", true).is_err());
    assert!(opened(&root, "a/file/x", true).is_err());
    assert!(opened(&root, "missing", false).is_err());
    assert_eq!(opened(&root, "dangling", true), Ok("new/deep".to_owned()));
    fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).unwrap();
    assert_eq!(opened(&root, "x/y", true), Ok("x/y".to_owned()));
    assert_eq!(permissions(&root.join("x/y")), 0o711);
    let deep = "d/".repeat(200);
    assert!(opened(&root, &deep, true).is_err());
}

#[test]
fn removal_follows_no_link_and_needs_no_stack() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("file"), "kept").unwrap();
    let root = folder.path().join("volume");
    fs::create_dir(&root).unwrap();
    symlink(&kept, root.join("link")).unwrap();
    for index in 0..300 {
        fs::write(root.join(format!("file-{index}")), "").unwrap();
    }
    // Deeper than any path may be long, and than a process may have files open.
    let mut here = nix::fcntl::open(
        &root,
        nix::fcntl::OFlag::O_DIRECTORY,
        nix::sys::stat::Mode::empty(),
    )
    .unwrap();
    for _ in 0..5000 {
        nix::sys::stat::mkdirat(&here, "deep", nix::sys::stat::Mode::S_IRWXU).unwrap();
        let flags = nix::fcntl::OFlag::O_DIRECTORY;
        here = nix::fcntl::openat(&here, "deep", flags, nix::sys::stat::Mode::empty()).unwrap();
    }
    drop(here);
    remove::tree(&root).unwrap();
    assert!(!root.exists());
    assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "kept");
    remove::tree(&root).unwrap();
    symlink(&kept, &root).unwrap();
    remove::tree(&root).unwrap();
    assert!(kept.join("file").exists());
}

#[test]
fn what_is_in_a_folder_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("large"), vec![1; 1 << 20]).unwrap();
    let root = folder.path();
    for path in ["a/b/c", "a/d", "e"] {
        fs::create_dir_all(root.join(path)).unwrap();
        fs::write(root.join(path).join("file"), vec![1; 64 << 10]).unwrap();
    }
    symlink(outside.path(), root.join("link")).unwrap();
    let bytes = measure::bytes(root, u64::MAX).unwrap();
    assert!((192 << 10..256 << 10).contains(&bytes), "{bytes}");
    // As package managers do: one file, many names, in one folder and in others.
    for name in ["a/again", "a/b/again", "e/again"] {
        fs::hard_link(root.join("e/file"), root.join(name)).unwrap();
    }
    assert_eq!(measure::bytes(root, u64::MAX).unwrap(), bytes);
    let enough = measure::bytes(root, 1).unwrap();
    assert!(1 < enough && enough < bytes, "{enough}");
}

#[tokio::test]
async fn what_containers_add_to_the_agent_s_own_files_is_counted() {
    const UID: &str = "0f4b2d6e-0000-4000-8000-000000000000";
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path());
    let volumes = Volumes::new(paths.clone());
    let bytes = async || volumes.own_bytes(UID, 1 << 30).await.unwrap();
    assert_eq!(bytes().await, 0, "there is nothing");
    for path in [
        paths.etc(UID).join("hosts"),
        paths.last_words(UID, "web", 0),
    ] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "127.0.0.1 localhost").unwrap();
        let before = bytes().await;
        assert!(before <= 1 << 20, "what the agent writes is little");
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        assert!(bytes().await >= before + (900 << 10));
    }
}

#[test]
fn paths_of_the_node_are_what_they_have_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let good =
        |name: &str, word: &str| host::check(&at(name), HostPathType::parse(word).unwrap()).is_ok();
    for (name, word, expected) in [
        ("file", "", true),
        ("file", "File", true),
        ("file", "FileOrCreate", true),
        ("file", "Directory", false),
        ("folder", "Directory", true),
        ("folder", "DirectoryOrCreate", true),
        ("folder", "File", false),
        ("socket", "Socket", true),
        ("socket", "File", false),
        ("none", "File", false),
        ("none", "Directory", false),
        ("none", "BlockDevice", false),
        ("none/new", "FileOrCreate", false),
        ("new/folder", "DirectoryOrCreate", true),
        ("new/any", "", true),
        ("new/file", "FileOrCreate", true),
        ("new/any", "Directory", true),
        ("new/file", "File", true),
    ] {
        assert_eq!(good(name, word), expected, "{name} {word}");
    }
    let null = Path::new("/dev/null");
    assert!(host::check(null, HostPathType::CharDevice).is_ok());
    assert!(host::check(null, HostPathType::BlockDevice).is_err());
}

#[test]
fn what_is_not_known_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("volume");
    let unknown = |may_be_missing| {
        let file = VolumeFile {
            may_be_missing,
            ..VolumeFile::as_it_is(0o644, "no manager answers".to_owned())
        };
        VolumeFiles::from([("token".to_owned(), file)])
    };
    let error = atomic::write(&root, &unknown(false), None).unwrap_err();
    assert!(error.to_string().contains("no manager answers"), "{error}");
    atomic::write(&root, &unknown(true), None).unwrap();
    assert!(!root.join("token").exists());
    atomic::write(&root, &files(&[("token", "one", 0o644)]), None).unwrap();
    atomic::write(&root, &unknown(false), None).unwrap();
    assert_eq!(fs::read_to_string(root.join("token")).unwrap(), "one");
}

/// Takes the file system away, also when the test fails.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn the_memory_of_all_files_is_bounded_and_its_end_is_told() {
    assert_eq!(options(16 << 30), "mode=0700,size=25%,nr_inodes=524288");
    assert_eq!(options(0), "mode=0700,size=25%,nr_inodes=32768");
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let paths = Paths::new(data.path());
    let folder = paths.volumes_in_memory();
    let volumes = Volumes::new(paths);
    let pod = |volumes: &[(&str, VolumeSource)]| PodVolumes {
        pod_uid: "0f4b2d6e-0000-4000-8000-000000000000".to_owned(),
        group: None,
        volumes: volumes
            .iter()
            .map(|(name, it)| ((*name).to_owned(), it.clone()))
            .collect(),
    };
    let small = VolumeSource::Files(files(&[("a", "1", 0o644)]));
    let _mounted = Mounted(folder.clone());
    volumes
        .ensure(&pod(&[("small", small.clone())]))
        .await
        .unwrap();
    let made = statfs(&folder).unwrap();
    let memory = Machine::read(Path::new("/proc")).memory;
    let size = made.blocks() * u64::try_from(made.block_size()).unwrap();
    assert!(size <= memory / 4 + 4096, "{size} of {memory}");
    assert!(made.files() <= (memory / MEMORY_PER_NODE).max(LEAST_NODES));
    // Full: one volume does not fit, and keeps no other from its place.
    nix::mount::umount2(&folder, nix::mount::MntFlags::MNT_DETACH).unwrap();
    let tiny = Some("mode=0700,size=256k");
    let (kind, flags) = (Some("tmpfs"), MsFlags::empty());
    mount(Some("test"), &folder, kind, flags, tiny).unwrap();
    let text = "x".repeat(1 << 20);
    let large = VolumeSource::Files(files(&[("a", text.as_str(), 0o644)]));
    let full = volumes
        .ensure(&pod(&[("large", large), ("small", small)]))
        .await;
    let why = full.unwrap_err().message;
    assert!(
        why.contains(
            "volume \"large\": its files: the memory for files of all pods on this node is full"
        ),
        "{why}"
    );
    let pods = folder.join("0f4b2d6e-0000-4000-8000-000000000000");
    assert_eq!(fs::read_to_string(pods.join("files/small/a")).unwrap(), "1");
}

#[tokio::test]
async fn a_path_that_never_answers_takes_one_thread_and_holds_up_no_other() {
    let volumes = Volumes::new(Paths::new("/nowhere"));
    let (release, hangs) = std::sync::mpsc::channel::<()>();
    let hangs = Arc::new(Mutex::new(hangs));
    let begun = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let look = |patience| {
        let (hangs, begun) = (Arc::clone(&hangs), Arc::clone(&begun));
        volumes.look("dead", patience, move || {
            begun.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let _ = hangs.lock().unwrap().recv();
            Ok(())
        })
    };
    // More than there are threads for all such looks.
    for _ in 0..100 {
        let error = look(Duration::from_millis(5)).await.unwrap_err();
        assert!(error.to_string().contains("does not answer"), "{error}");
    }
    let patience = Duration::from_secs(60);
    let other = volumes.look("good", patience, || Ok(())).await;
    assert!(other.is_ok());
    assert_eq!(begun.load(std::sync::atomic::Ordering::SeqCst), 1);
    drop(release);
    look(patience).await.unwrap();
    let wrong = volumes.look("good", patience, || Err(io::ErrorKind::NotFound.into()));
    assert!(wrong.await.is_err());
}
