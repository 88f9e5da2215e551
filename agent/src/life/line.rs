//! The way of life signs to one manager: a connection of its own and a stream on it, opened again whenever it ends.

use std::{sync::Arc, time::Duration};

use barge_proto::v1::{LifeAnswer, LifeSign, life_client::LifeClient};
use futures::StreamExt;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::WatchStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::transport::Channel;

use crate::managers::{Managers, cause};

/// The longest wait before a stream is opened again.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A stream without an answer for so long is replaced by another one, spread by half of it.
const SILENCE: Duration = Duration::from_secs(10);
/// An answer is 40 bytes.
const LARGEST_ANSWER: usize = 4096;

/// What came from a manager: an answer, or why its stream ended.
pub type Heard = (Arc<str>, Result<LifeAnswer, String>);

/// A line to one manager, until it is dropped.
pub struct Line {
    /// `host:port`.
    pub address: Arc<str>,
    /// The newest sign. Those that a slow line could not send in time are skipped.
    sign: watch::Sender<Option<LifeSign>>,
    _task: AbortOnDropHandle<()>,
}

impl Line {
    /// Opens a line, on the runtime that this is called on.
    pub fn open(address: &str, managers: Arc<dyn Managers>, heard: mpsc::Sender<Heard>) -> Self {
        let address: Arc<str> = address.into();
        let (sign, signs) = watch::channel(None);
        let kept = keep(address.clone(), managers, signs, heard);
        Self {
            address,
            sign,
            _task: AbortOnDropHandle::new(tokio::spawn(kept)),
        }
    }

    /// Sends a sign as soon as the line can take it, unless a newer one comes before.
    pub fn sign(&self, sign: LifeSign) {
        self.sign.send_replace(Some(sign));
    }
}

async fn keep(
    address: Arc<str>,
    managers: Arc<dyn Managers>,
    signs: watch::Receiver<Option<LifeSign>>,
    heard: mpsc::Sender<Heard>,
) {
    let channel = match managers.life_channel(&address) {
        Ok(channel) => channel,
        Err(error) => return drop(heard.send((address, Err(error))).await),
    };
    loop {
        let opened = Instant::now();
        let ended = hold(channel.clone(), &address, signs.clone(), &heard).await;
        if heard.send((address.clone(), Err(ended))).await.is_err() {
            return;
        }
        // One that lasted is opened again at once.
        if opened.elapsed() < LONGEST_WAIT {
            sleep(LONGEST_WAIT.mul_f64(rand::random_range(0.25..=1.0))).await;
        }
    }
}

/// Holds a stream until it ends; answers why.
async fn hold(
    channel: Channel,
    address: &Arc<str>,
    signs: watch::Receiver<Option<LifeSign>>,
    heard: &mpsc::Sender<Heard>,
) -> String {
    let patience = SILENCE.mul_f64(rand::random_range(1.0..=1.5));
    let silent = || "no answer".to_owned();
    let mut client = LifeClient::new(channel).max_decoding_message_size(LARGEST_ANSWER);
    // HTTP/2 goes on to send a request's body when nobody waits for its answer any more: the signs of a stream end with it.
    let ended = CancellationToken::new();
    let _at_the_end = ended.clone().drop_guard();
    let signs = WatchStream::new(signs)
        .filter_map(std::future::ready)
        .take_until(ended.cancelled_owned());
    let mut incoming = match timeout(patience, client.signs(signs)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return cause(&status),
        Err(_) => return silent(),
    };
    loop {
        let answer = match timeout(patience, incoming.message()).await {
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => return "the manager closed it".to_owned(),
            Ok(Err(status)) => return cause(&status),
            Err(_) => return silent(),
        };
        if heard.send((address.clone(), Ok(answer))).await.is_err() {
            return "this agent ends".to_owned();
        }
    }
}
