//! The runtime against a real containerd, a real registry and the real kernel. Needs root; what is missing on the
//! machine fails the tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "runtime/adoption.rs"]
mod adoption;
#[path = "runtime/bad.rs"]
mod bad;
#[path = "runtime/carrying.rs"]
mod carrying;
#[path = "runtime/collecting.rs"]
mod collecting;
#[path = "runtime/execs.rs"]
mod execs;
#[path = "runtime/image.rs"]
mod image;
#[path = "runtime/lying.rs"]
mod lying;
#[path = "runtime/machine.rs"]
mod machine;
#[path = "runtime/memory.rs"]
mod memory;
#[path = "runtime/namespaces.rs"]
mod namespaces;
#[path = "runtime/pods.rs"]
mod pods;
#[path = "runtime/private.rs"]
mod private;
#[path = "runtime/pulling.rs"]
mod pulling;
#[path = "runtime/recovery.rs"]
mod recovery;
#[path = "../src/testing/registry.rs"]
mod registry;
#[path = "runtime/resources.rs"]
mod resources;
#[path = "runtime/security.rs"]
mod security;
#[path = "runtime/talking.rs"]
mod talking;
#[path = "runtime/traces.rs"]
mod traces;
#[path = "runtime/volumes.rs"]
mod volumes;

/// Not a test: this program as a carrier. The tests start it through a script, as the agent starts itself.
#[test]
#[ignore = "run by the other tests as a process of its own"]
fn carrier_process() {
    let data_dir = std::env::var_os("BARGE_TEST_CARRIER").expect("a data folder");
    let args = barge_agent::carrier::Args {
        data_dir: data_dir.into(),
        standby: false,
    };
    barge_agent::carrier::run(&args).expect("a carrier");
}
