//! Copies by way of a manager whose pod runs this machine's `tar`.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use super::*;
use crate::testing::Fake;

struct Test {
    fake: Fake,
    folder: tempfile::TempDir,
}

impl Test {
    /// With `src`: a file, a folder in it, a link.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self {
            fake: Fake::start().await,
            folder,
        };
        let src = place.path("src");
        fs::create_dir_all(src.join("inner")).unwrap();
        fs::write(src.join("big"), vec![b'x'; 1 << 20]).unwrap();
        fs::write(src.join("inner/run"), "#!").unwrap();
        fs::set_permissions(src.join("inner/run"), PermissionsExt::from_mode(0o750)).unwrap();
        symlink("inner/run", src.join("link")).unwrap();
        fs::create_dir(place.path("into")).unwrap();
        place
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn put(&self, from: &str, to: &str) -> Result<()> {
        let to = self.there(to);
        upload::run(&self.inside(), Path::new(&self.text(from)), &to, false).await
    }

    async fn fetch(&self, from: &str, to: &str) -> Result<()> {
        let from = self.there(from);
        download::run(&self.inside(), &from, Path::new(&self.text(to))).await
    }

    fn text(&self, name: &str) -> String {
        format!("{}/{name}", self.folder.path().display())
    }

    fn there(&self, name: &str) -> place::RemotePath {
        match format!("web:{}", self.text(name)).parse() {
            Ok(Place::There(remote)) => remote.path,
            other => panic!("{other:?}"),
        }
    }

    fn inside(&self) -> Inside {
        Inside {
            client: self.fake.client.clone(),
            namespace: "default".into(),
            pod: "web".into(),
            container: String::new(),
        }
    }

    fn check_copy(&self, name: &str) {
        let copy = self.path(name);
        assert_eq!(fs::read(copy.join("big")).unwrap().len(), 1 << 20);
        assert_eq!(fs::read(copy.join("inner/run")).unwrap(), b"#!");
        let mode = fs::metadata(copy.join("inner/run")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o750);
        let target = fs::read_link(copy.join("link")).unwrap();
        assert_eq!(target, Path::new("inner/run"));
    }
}

#[tokio::test]
async fn a_folder_goes_into_a_folder_or_under_a_new_name() {
    let place = Test::new().await;
    place.put("src", "into").await.unwrap();
    place.check_copy("into/src");
    place.put("src", "new").await.unwrap();
    place.check_copy("new");
    place.put("src/.", "into").await.unwrap();
    place.check_copy("into");
    place.fetch("src", "into/down").await.unwrap();
    place.check_copy("into/down");
    place.fetch("src/", "into/down").await.unwrap();
    place.check_copy("into/down/src");
    place.fetch("src/.", "contents").await.unwrap();
    place.check_copy("contents");
}

#[tokio::test]
async fn a_file_goes_into_a_folder_or_under_a_new_name() {
    let place = Test::new().await;
    for (from, to, made) in [
        ("src/big", "into", "into/big"),
        ("src/big", "into/", "into/big"),
        ("src/big", "into/other", "into/other"),
        ("src/link", "into/run", "into/run"),
    ] {
        place.put(from, to).await.unwrap();
        assert_eq!(
            fs::read(place.path(made)).unwrap(),
            fs::read(place.path(from)).unwrap()
        );
    }
    for (to, made) in [("into/down", "into/down"), ("src/inner", "src/inner/big")] {
        place.fetch("src/big", to).await.unwrap();
        assert_eq!(fs::read(place.path(made)).unwrap().len(), 1 << 20);
    }
    let error = place.put("src/big", "none/").await.unwrap_err();
    assert!(error.to_string().contains("there is no folder"), "{error}");
    let error = place.fetch("src/big", "none/").await.unwrap_err();
    assert!(error.to_string().contains("not copied"), "{error}");
    assert!(!place.path("none").exists());
}

#[tokio::test]
async fn what_goes_wrong_is_told() {
    let place = Test::new().await;
    let error = place.fetch("nothing", "into").await.unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("tar in pod web ended with code"), "{text}");
    assert!(text.contains("nothing"), "{text}");
    let error = place.put("nothing", "into").await.unwrap_err();
    assert!(format!("{error:#}").contains("nothing"), "{error:#}");
    let error = place.put("src", "none/deeper/x").await.unwrap_err();
    assert!(format!("{error:#}").contains("deeper"), "{error:#}");
    let error = place.fetch("src", "none/deeper").await.unwrap_err();
    assert!(format!("{error:#}").contains("open "), "{error:#}");
    assert!(!place.path("none").exists());
}

#[tokio::test]
async fn a_container_without_tar_is_told_with_the_way_out() {
    let place = Test::new().await;
    let error = place.inside().tar(&["missing"], false).await.unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("cp runs tar") && text.contains("barge exec web -- cat"),
        "{text}"
    );
}
