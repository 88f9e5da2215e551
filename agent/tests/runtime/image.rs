//! Images assembled from this machine's own busybox, pushed to the test's registry.

use std::{fs, path::Path};

use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol, Config, ImageLayer},
    manifest::{ImageIndexEntry, OciImageIndex, OciManifest, Platform},
    secrets::RegistryAuth,
};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::machine::{Machine, run};

pub fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    })
}

pub fn reference(repository: &str, tag: &str) -> Reference {
    Reference::with_tag("127.0.0.1:5000".into(), repository.into(), tag.into())
}

/// A file system with busybox and users: one tar, packed.
fn base(machine: &Machine) -> (Vec<u8>, String) {
    let root = machine.path("rootfs");
    if !root.exists() {
        for folder in ["bin", "etc", "tmp", "home/www"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox"))
            .expect("busybox-static has to be installed");
        for tool in [
            "sh", "cat", "echo", "sleep", "id", "env", "seq", "nc", "pwd", "hostname", "dd",
            "tail", "grep", "ls",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(tool)).unwrap();
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/:/bin/sh\nwww:x:33:34::/home/www:/bin/sh\n",
        )
        .unwrap();
        fs::write(
            root.join("etc/group"),
            "root:x:0:\nwww:x:34:\nlogs:x:50:www\n",
        )
        .unwrap();
    }
    pack(machine, &root)
}

pub fn pack(machine: &Machine, root: &Path) -> (Vec<u8>, String) {
    let tar = machine.path("layer.tar").display().to_string();
    run(
        "tar",
        &[
            "-C",
            &root.display().to_string(),
            "--sort=name",
            "--numeric-owner",
            "-cf",
            &tar,
            ".",
        ],
    );
    let diff_id = digest(&fs::read(&tar).unwrap());
    run("gzip", &["-n", "-f", "-1", &tar]);
    (fs::read(format!("{tar}.gz")).unwrap(), diff_id)
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// An image whose parts are at hand.
pub struct Made {
    pub layers: Vec<ImageLayer>,
    pub config: Config,
}

/// An image of busybox and one more layer with a file `/marker`.
pub fn make(machine: &Machine, marker: &str, config: &serde_json::Value) -> Made {
    let (layer, diff_id) = base(machine);
    let above = machine.path(&format!("above-{marker}"));
    fs::create_dir_all(&above).unwrap();
    fs::write(above.join("marker"), marker).unwrap();
    let (second, second_id) = pack(machine, &above);
    let whole = json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": [diff_id, second_id]},
    });
    Made {
        layers: vec![
            ImageLayer::oci_v1_gzip(layer, None),
            ImageLayer::oci_v1_gzip(second, None),
        ],
        config: Config::oci_v1(serde_json::to_vec(&whole).unwrap(), None),
    }
}

/// Makes and pushes an image for docker.io/library.
pub async fn push(machine: &Machine, name: &str, config: serde_json::Value) {
    let (repository, tag) = name.split_once(':').unwrap();
    let made = make(machine, &format!("{repository}-{tag}"), &config);
    let target = reference(&format!("library/{repository}"), tag);
    let anonymous = RegistryAuth::Anonymous;
    client()
        .push(&target, &made.layers, made.config, &anonymous, None)
        .await
        .unwrap();
}

/// Pushes an index that has a pushed image for this machine, and nothing behind another platform.
pub async fn push_index(repository: &str, image_tag: &str, tag: &str) {
    let client = client();
    let anonymous = RegistryAuth::Anonymous;
    let accepted = ["application/vnd.oci.image.manifest.v1+json"];
    let image = reference(repository, image_tag);
    let (bytes, digest) = client
        .pull_manifest_raw(&image, &anonymous, &accepted)
        .await
        .unwrap();
    let entry = |architecture: &str, digest: String| ImageIndexEntry {
        media_type: accepted[0].into(),
        digest,
        size: i64::try_from(bytes.len()).unwrap(),
        platform: Some(Platform {
            architecture: architecture.into(),
            os: "linux".into(),
            os_version: None,
            os_features: None,
            variant: None,
            features: None,
        }),
        annotations: None,
        artifact_type: None,
    };
    let ours = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    let index = OciImageIndex {
        schema_version: 2,
        media_type: Some("application/vnd.oci.image.index.v1+json".into()),
        manifests: vec![entry(ours, digest)],
        artifact_type: None,
        annotations: None,
    };
    let index = OciManifest::ImageIndex(index);
    client
        .push_manifest(&reference(repository, tag), &index)
        .await
        .unwrap();
}
