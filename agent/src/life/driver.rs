//! Does what the choice says: opens lines, sends signs, passes on answers. Nothing here waits for anything else.

use std::sync::Arc;

use barge_proto::v1::LifeSign;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    Lane, SessionState,
    choice::Choice,
    line::{Heard, Line},
};
use crate::{managers::Managers, programmed::Programmed};

/// What is on its way from the lines to the driver; a line waits while it is full.
const HEARD: usize = 8;

/// The one that drives.
pub struct Driver {
    managers: Arc<dyn Managers>,
    choice: Choice,
    lines: Vec<Line>,
    sequence: u64,
    heard: (mpsc::Sender<Heard>, mpsc::Receiver<Heard>),
    /// Why a stream ended last.
    trouble: String,
    chosen: watch::Sender<Option<String>>,
    silence: watch::Sender<Option<String>>,
    programmed: Programmed,
    session: watch::Receiver<SessionState>,
}

impl Driver {
    /// A driver, and what others see of it.
    pub fn new(managers: Arc<dyn Managers>, programmed: Programmed) -> (Self, Lane) {
        let (chosen, see_chosen) = watch::channel(None);
        let (silence, see_silence) = watch::channel(None);
        let (say_session, session) = watch::channel(SessionState::default());
        let driver = Self {
            managers,
            choice: Choice::new(rand::random()),
            lines: Vec::new(),
            sequence: 0,
            heard: mpsc::channel(HEARD),
            trouble: "no answer".to_owned(),
            chosen,
            silence,
            programmed,
            session,
        };
        let lane = Lane {
            chosen: see_chosen,
            silence: see_silence,
            session: say_session,
        };
        (driver, lane)
    }

    /// Drives for as long as it is polled. Signs when `hold` has ended.
    pub async fn run<T>(mut self, hold: impl Future<Output = T>) {
        let begin = Instant::now();
        let mut hold = std::pin::pin!(hold);
        let mut is_held = true;
        loop {
            let managers = &self.managers;
            self.choice.know(managers.addresses(), managers.by_hand());
            let step = match is_held {
                true => self.choice.wait(begin.elapsed()),
                false => self.choice.step(begin.elapsed()),
            };
            self.keep_lines();
            self.sign(&step.sign);
            self.publish();
            tokio::select! {
                _ = &mut hold, if is_held => is_held = false,
                Some((address, heard)) = self.heard.1.recv() => match heard {
                    Ok(answer) => {
                        self.choice.answered(begin.elapsed(), &address, &answer);
                        self.programmed.told(answer.programmed_revision);
                    }
                    Err(reason) => self.trouble = format!("{address}: {reason}"),
                },
                Ok(()) = self.session.changed() => match &*self.session.borrow_and_update() {
                    SessionState::None => {}
                    SessionState::Began(address) => self.choice.settled(address),
                    SessionState::Ended(address) => self.choice.give_up(address),
                },
                () = sleep(step.wait) => {}
            }
        }
    }

    /// Lines to both choices, and no others.
    fn keep_lines(&mut self) {
        let choice = &self.choice;
        self.lines
            .retain(|line| choice.addresses().any(|address| *address == *line.address));
        for address in choice.addresses() {
            if self.lines.iter().all(|line| *line.address != *address) {
                let (managers, heard) = (self.managers.clone(), self.heard.0.clone());
                self.lines.push(Line::open(address, managers, heard));
            }
        }
    }

    fn sign(&mut self, addresses: &[String]) {
        if addresses.is_empty() {
            return;
        }
        self.sequence += 1;
        let (answered_term, answered_stamp) = self.choice.newest();
        let sign = LifeSign {
            sequence: self.sequence,
            roots_sha256: self.managers.roots_sha256().to_vec(),
            answered_term,
            answered_stamp,
            programmed_revision: self.programmed.here(),
        };
        for line in &self.lines {
            if addresses.iter().any(|address| **address == *line.address) {
                line.sign(sign.clone());
            }
        }
    }

    fn publish(&self) {
        self.chosen.send_if_modified(|chosen| {
            let changed = chosen.as_deref() != self.choice.first();
            if changed {
                *chosen = self.choice.first().map(str::to_owned);
            }
            changed
        });
        let silent = !self.choice.is_heard();
        self.silence.send_if_modified(|silence| {
            let changed = silence.is_some() != silent;
            if changed {
                *silence = silent.then(|| self.trouble.clone());
            }
            changed
        });
    }
}
