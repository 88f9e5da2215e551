//! What the manager sends on a stream into a pod.
//!
//! The manager has few chunks on their way, and sends no more before it has heard of each that it was dealt with. So the agent reads them all at once, and
//! sees the end of the manager's half also while a program does not take what came before.

use barge_proto::v1::TunnelChunk;
use tokio::sync::mpsc;
use tonic::Streaming;

/// Chunks that wait. The managers know the number.
const WAITING: usize = 4;

/// Reads ahead: the first part returns when the manager's half has ended, which means that the client has gone; the second part has the chunks.
pub fn ahead(
    back: &mut Streaming<TunnelChunk>,
) -> (impl Future<Output = ()> + Send, mpsc::Receiver<TunnelChunk>) {
    let (sender, waiting) = mpsc::channel(WAITING);
    let read = async move {
        while let Ok(Some(chunk)) = back.message().await {
            if sender.send(chunk).await.is_err() {
                // Nobody takes them any more.
                super::until_gone(back).await;
                return;
            }
        }
    };
    (read, waiting)
}

/// Tells the manager that one of its chunks was dealt with. Answers whether it is still there.
pub async fn dealt_with(chunks: &mpsc::Sender<TunnelChunk>) -> bool {
    chunks.send(TunnelChunk::default()).await.is_ok()
}
