//! Generates the Rust types and services of `barge/v1`.

use std::{env, io, path::PathBuf};

const FILES: &[&str] = &[
    "meta", "core", "apps", "auth", "api", "cluster", "session", "store", "raft",
];

fn main() -> io::Result<()> {
    let files: Vec<_> = FILES
        .iter()
        .map(|name| format!("barge/v1/{name}.proto"))
        .collect();
    let out = PathBuf::from(
        env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?,
    );
    let mut config = tonic_prost_build::Config::new();
    config.btree_map(["."]);
    // Log entries and snapshots pass through without being copied.
    config.bytes([
        ".barge.v1.RaftEntry.command",
        ".barge.v1.RaftSnapshotMessage.data",
    ]);
    // The generated `connect` helper would collide with the RPC Session.Connect; channels are made in barge-client.
    tonic_prost_build::configure()
        .build_transport(false)
        .file_descriptor_set_path(out.join("descriptor.bin"))
        .compile_with_config(config, &files, &[".".to_owned()])
}
