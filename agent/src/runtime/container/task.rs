//! containerd's tasks: the running side of containers.

use std::time::Duration;

use containerd_client::{
    services::v1 as api,
    tonic::Status,
    types::{
        Mount,
        v1::{Process, Status as TaskStatus},
    },
};
use tokio::time::{sleep, timeout};

use crate::runtime::{client::Client, error::unless_missing};

/// Between two looks when containerd does not say by itself.
const POLL: Duration = Duration::from_millis(50);
/// A killed process that takes longer hangs in the kernel.
pub const KILL_PATIENCE: Duration = Duration::from_secs(30);
/// The signal nobody survives.
pub const SIGKILL: u32 = 9;

/// The task of a container, or what is left of it.
pub async fn get(client: &Client, id: &str) -> Result<Option<Process>, Status> {
    let request = api::GetRequest {
        container_id: id.to_owned(),
        exec_id: String::new(),
    };
    let answer = unless_missing(client.services().tasks().get(client.look(request)).await)?;
    Ok(answer.and_then(|answer| answer.into_inner().process))
}

/// All tasks in our namespace.
pub async fn list(client: &Client) -> Result<Vec<Process>, Status> {
    let request = api::ListTasksRequest::default();
    let answer = client.services().tasks().list(client.look(request)).await?;
    Ok(answer.into_inner().tasks)
}

/// Makes the container's process, which waits to be started.
pub async fn create(
    client: &Client,
    id: &str,
    rootfs: Vec<Mount>,
    stdout: String,
    stderr: String,
) -> Result<(), Status> {
    let request = api::CreateTaskRequest {
        container_id: id.to_owned(),
        rootfs,
        stdout,
        stderr,
        ..api::CreateTaskRequest::default()
    };
    client
        .services()
        .tasks()
        .create(client.request(request))
        .await?;
    Ok(())
}

/// Lets it run; answers its process id.
pub async fn start(client: &Client, id: &str) -> Result<u32, Status> {
    let request = api::StartRequest {
        container_id: id.to_owned(),
        exec_id: String::new(),
    };
    let answer = client
        .services()
        .tasks()
        .start(client.request(request))
        .await?;
    Ok(answer.into_inner().pid)
}

/// Sends a signal to its first process. That it has ended is success.
pub async fn signal(client: &Client, id: &str, signal: u32) -> Result<(), Status> {
    let request = api::KillRequest {
        container_id: id.to_owned(),
        exec_id: String::new(),
        signal,
        all: false,
    };
    unless_missing(
        client
            .services()
            .tasks()
            .kill(client.request(request))
            .await,
    )?;
    Ok(())
}

/// Waits until its first process has ended; answers false when it has not by then.
pub async fn ended(client: &Client, id: &str, patience: Duration) -> Result<bool, Status> {
    match timeout(patience, wait(client, id)).await {
        Ok(waited) => waited.map(|()| true),
        Err(_) => Ok(false),
    }
}

async fn wait(client: &Client, id: &str) -> Result<(), Status> {
    loop {
        let request = api::WaitRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
        };
        let waited = client
            .services()
            .tasks()
            .wait(client.lasting(request))
            .await;
        match unless_missing(waited) {
            Ok(_) => return Ok(()),
            // No exit, only nobody there to tell of it: containerd or the shim went away.
            Err(_) => match get(client, id).await {
                Ok(None) => return Ok(()),
                Ok(Some(process)) if process.status() == TaskStatus::Stopped => return Ok(()),
                _ => sleep(POLL).await,
            },
        }
    }
}

/// Removes the task, killing it if it runs; answers whether there was one.
pub async fn delete(client: &Client, id: &str) -> Result<bool, Status> {
    let remove = || async {
        let request = api::DeleteTaskRequest {
            container_id: id.to_owned(),
        };
        client
            .services()
            .tasks()
            .delete(client.request(request))
            .await
    };
    if let Ok(removed) = unless_missing(remove().await) {
        return Ok(removed.is_some());
    }
    // It runs, most likely: that has no code of its own, only words.
    signal(client, id, SIGKILL).await?;
    if !ended(client, id, KILL_PATIENCE).await? {
        return Err(Status::deadline_exceeded(
            "its process survives being killed",
        ));
    }
    unless_missing(remove().await).map(|removed| removed.is_some())
}

/// Asks to end, and kills after the grace. That it has ended is success.
pub async fn stop(client: &Client, id: &str, first: u32, grace: Duration) -> Result<(), Status> {
    if !grace.is_zero() {
        signal(client, id, first).await?;
        if ended(client, id, grace).await? {
            return Ok(());
        }
    }
    signal(client, id, SIGKILL).await?;
    match ended(client, id, KILL_PATIENCE).await? {
        true => Ok(()),
        false => Err(Status::deadline_exceeded(
            "its process survives being killed",
        )),
    }
}
