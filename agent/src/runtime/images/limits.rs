//! How long containerd may take for an answer. A containerd that hangs holds no permit and no lease for ever: the pull
//! fails and is tried again.

use std::time::Duration;

use containerd_client::tonic::Status;
use tokio::time::timeout;

/// For a call that only changes containerd's database: leases, labels, snapshots.
pub const CALL: Duration = Duration::from_secs(120);
/// For each message of a blob that is read or written.
pub const MESSAGE: Duration = Duration::from_secs(60);
/// For the end of a blob: containerd writes to the disk what the kernel still holds of it.
pub const COMMIT: Duration = Duration::from_secs(600);
/// For a layer to be unpacked.
pub const UNPACK: Duration = Duration::from_secs(1800);

/// Waits for an answer; `DEADLINE_EXCEEDED` when it takes longer.
pub async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    timeout(limit, answer).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!(
            "containerd gave no answer in {} s; it hangs, or its disk is very slow",
            limit.as_secs()
        )))
    })
}
