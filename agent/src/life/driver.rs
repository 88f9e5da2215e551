//! Does what the choice says: opens lines, sends signs, passes on answers. Nothing here waits for anything else.

use std::sync::Arc;

use barge_proto::v1::LifeSign;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    Lane,
    choice::Choice,
    line::{Answered, Line},
};
use crate::session::Managers;

/// Answers on their way from the lines to the driver; a line waits while it is full.
const ANSWERS: usize = 8;

/// The one that drives.
pub struct Driver {
    managers: Arc<dyn Managers>,
    choice: Choice,
    lines: Vec<Line>,
    sequence: u64,
    answers: (mpsc::Sender<Answered>, mpsc::Receiver<Answered>),
    chosen: watch::Sender<Option<String>>,
    heard: watch::Sender<bool>,
    given_up: watch::Receiver<String>,
}

impl Driver {
    /// A driver, and what others see of it.
    pub fn new(managers: Arc<dyn Managers>) -> (Self, Lane) {
        let (chosen, see_chosen) = watch::channel(None);
        let (heard, see_heard) = watch::channel(true);
        let (give_up, given_up) = watch::channel(String::new());
        let driver = Self {
            managers,
            choice: Choice::new(rand::random()),
            lines: Vec::new(),
            sequence: 0,
            answers: mpsc::channel(ANSWERS),
            chosen,
            heard,
            given_up,
        };
        let lane = Lane {
            chosen: see_chosen,
            heard: see_heard,
            given_up: give_up,
        };
        (driver, lane)
    }

    /// Drives for as long as it is polled.
    pub async fn run(mut self) {
        let begin = Instant::now();
        loop {
            let managers = &self.managers;
            self.choice.know(managers.addresses(), managers.by_hand());
            let step = self.choice.step(begin.elapsed());
            self.keep_lines();
            self.sign(&step.sign);
            self.publish();
            tokio::select! {
                Some((address, answer)) = self.answers.1.recv() => {
                    self.choice.answered(begin.elapsed(), &address, &answer);
                }
                Ok(()) = self.given_up.changed() => {
                    let address = self.given_up.borrow_and_update().clone();
                    self.choice.give_up(&address);
                }
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
                let (managers, answers) = (self.managers.clone(), self.answers.0.clone());
                self.lines.push(Line::open(address, managers, answers));
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
        let heard = self.choice.is_heard();
        self.heard
            .send_if_modified(|before| std::mem::replace(before, heard) != heard);
    }
}
