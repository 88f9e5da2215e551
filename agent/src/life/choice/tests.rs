//! The choice among managers that are up and down by a schedule, on a fake clock.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("manager-{n}:7100")).collect()
}

fn answer(stamp: u64) -> LifeAnswer {
    LifeAnswer {
        term: 1,
        stamp,
        node_grace_ms: 4000,
        ..Default::default()
    }
}

/// From when to when a manager does not answer.
#[derive(Debug, Clone)]
struct Outage {
    manager: String,
    from: Duration,
    until: Duration,
}

struct World {
    choice: Choice,
    now: Duration,
    latency: Duration,
    outages: Vec<Outage>,
    /// When answers arrive, and whose.
    pending: Vec<(Duration, String)>,
    /// When signs reached a manager that has a way to the leader.
    reached: Vec<Duration>,
    /// When which manager became the first choice.
    firsts: Vec<(Duration, String)>,
    /// When a manager became one of the choices.
    dialed: Vec<(Duration, String)>,
    present: BTreeSet<String>,
}

impl World {
    fn new(seed: u64, managers: usize, outages: Vec<Outage>) -> Self {
        let mut choice = Choice::new(seed);
        choice.know(names(managers), Vec::new());
        Self {
            choice,
            now: Duration::ZERO,
            latency: ms(20),
            outages,
            pending: Vec::new(),
            reached: Vec::new(),
            firsts: Vec::new(),
            dialed: Vec::new(),
            present: BTreeSet::new(),
        }
    }

    fn is_up(&self, manager: &str) -> bool {
        let mut outages = self.outages.iter();
        !outages.any(|o| o.manager == manager && o.from <= self.now && self.now < o.until)
    }

    fn run(&mut self, until: Duration) {
        while self.now < until {
            let step = self.choice.step(self.now);
            assert!(step.wait > Duration::ZERO && step.wait <= PACE, "{step:?}");
            self.note();
            for manager in step.sign {
                if self.is_up(&manager) {
                    self.reached.push(self.now);
                    self.pending.push((self.now + self.latency, manager));
                }
            }
            let next = self.pending.iter().map(|(at, _)| *at).min();
            self.now = next.unwrap_or(until).min(self.now + step.wait);
            let (due, later) = std::mem::take(&mut self.pending)
                .into_iter()
                .partition(|(at, _)| *at <= self.now);
            self.pending = later;
            for (_, manager) in due {
                if self.is_up(&manager) {
                    let stamp = self.now.as_millis() as u64;
                    self.choice.answered(self.now, &manager, &answer(stamp));
                }
            }
        }
    }

    fn note(&mut self) {
        let first = self.choice.first().unwrap().to_owned();
        let choices: Vec<_> = self.choice.addresses().map(str::to_owned).collect();
        assert!(
            choices.len() <= 2 && choices.first() != choices.get(1),
            "{choices:?}"
        );
        assert!(
            choices
                .iter()
                .all(|choice| self.choice.members.contains(choice))
        );
        if self
            .firsts
            .last()
            .is_none_or(|(_, before)| *before != first)
        {
            self.firsts.push((self.now, first));
        }
        let present: BTreeSet<_> = choices.into_iter().collect();
        let new = present
            .difference(&self.present)
            .map(|m| (self.now, m.clone()));
        self.dialed.extend(new);
        self.present = present;
    }

    fn first(&self) -> String {
        self.choice.first().unwrap().to_owned()
    }

    fn second(&self) -> String {
        self.choice.addresses().nth(1).unwrap().to_owned()
    }

    fn stop(&mut self, manager: String, length: Duration) {
        self.outages.push(Outage {
            manager,
            from: self.now,
            until: self.now + length,
        });
    }
}

#[test]
fn a_first_choice_that_stops_is_left_after_half_the_grace() {
    let mut world = World::new(1, 3, Vec::new());
    world.run(5 * SECOND);
    let (first, second) = (world.first(), world.second());
    world.stop(first.clone(), 60 * SECOND);
    let stopped = world.now;
    world.run(stopped + 10 * SECOND);
    let (moved, to) = world.firsts.last().unwrap();
    assert_eq!(*to, second);
    assert!(*moved - stopped <= ms(2100), "{:?}", *moved - stopped);
    assert_ne!(world.second(), first, "the one just left");
}

#[test]
fn one_manager_has_no_second_choice_and_stays() {
    let mut world = World::new(1, 1, Vec::new());
    world.run(2 * SECOND);
    world.stop(world.first(), 60 * SECOND);
    world.run(30 * SECOND);
    world.choice.give_up(&world.first());
    world.run(70 * SECOND);
    assert_eq!(world.firsts.len(), 1);
    assert_eq!(world.choice.addresses().count(), 1);
}

#[test]
fn while_nobody_answers_agents_stay_and_look_around_more_and_more_slowly() {
    let outages = names(5).into_iter().map(|manager| Outage {
        manager,
        from: 3 * SECOND,
        until: 603 * SECOND,
    });
    let mut world = World::new(7, 5, outages.collect());
    world.run(3 * SECOND);
    world.dialed.clear();
    world.run(600 * SECOND);
    assert!(!world.choice.is_heard());
    assert_eq!(world.firsts.len(), 1);
    let tried: BTreeSet<_> = world.dialed.iter().map(|(_, manager)| manager).collect();
    assert_eq!(tried.len(), 4, "all but the first");
    assert!(world.dialed.len() <= 600 / 12 + 4, "{}", world.dialed.len());
    world.run(606 * SECOND);
    assert!(world.choice.is_heard());
    assert_eq!(world.firsts.len(), 1, "it answers again, like all others");
}

#[test]
fn whoever_is_given_up_makes_room_for_each_of_the_others_and_last_for_those_given_by_hand() {
    let mut choice = Choice::new(3);
    choice.know(names(4), vec!["by-hand:7100".to_owned()]);
    let mut clock = Duration::ZERO;
    let mut seen = Vec::new();
    for _ in 0..10 {
        clock += 5 * SECOND;
        // In pieces: the lane's clock does not leap.
        for _ in 0..10 {
            choice.step(clock);
            clock += ms(500);
        }
        seen.push(choice.first().unwrap().to_owned());
        choice.give_up(choice.first().unwrap().to_owned().as_str());
    }
    let all: BTreeSet<_> = seen.iter().collect();
    assert_eq!(all.len(), 5, "{seen:?}");
}

#[test]
fn a_first_choice_whose_session_is_back_is_not_left_when_the_second_one_answers() {
    let mut world = World::new(1, 2, Vec::new());
    world.run(SECOND);
    let (first, second) = (world.first(), world.second());
    world.choice.give_up(&first);
    assert_eq!(world.first(), second, "it had answered");
    // The other one dies; the session with this one ends, and another begins.
    world.stop(first.clone(), 60 * SECOND);
    world.run(2 * SECOND);
    world.choice.give_up(&second);
    world.choice.settled(&first);
    world.choice.settled(&second);
    world.run(70 * SECOND);
    assert!(world.is_up(&first));
    assert_eq!(world.first(), second);
    world.stop(second, 60 * SECOND);
    world.run(80 * SECOND);
    assert_eq!(world.first(), first);
}

#[test]
fn a_pause_of_this_process_is_nobodys_silence() {
    let mut world = World::new(5, 3, Vec::new());
    world.run(5 * SECOND);
    let first = world.first();
    // Stopped for a minute, and the second choice is heard first after that.
    world.now += 60 * SECOND;
    world.pending.clear();
    let second = world.second();
    world.choice.answered(world.now, &second, &answer(1));
    world.run(world.now + 10 * SECOND);
    assert_eq!(world.first(), first);
    assert_eq!(world.firsts.len(), 1);
}

#[test]
fn whoever_finds_the_new_leader_a_moment_earlier_is_not_moved_to() {
    let mut world = World::new(5, 3, Vec::new());
    world.run(5 * SECOND);
    let first = world.first();
    for manager in names(3) {
        let length = if manager == first { ms(2400) } else { ms(2100) };
        world.stop(manager, length);
    }
    world.run(15 * SECOND);
    assert_eq!(world.firsts.len(), 1);
}

#[test]
fn managers_that_leave_the_cluster_are_left() {
    let mut world = World::new(5, 4, Vec::new());
    world.run(2 * SECOND);
    let (first, second) = (world.first(), world.second());
    let rest: Vec<_> = names(4).into_iter().filter(|name| *name != first).collect();
    world.choice.know(rest.clone(), Vec::new());
    world.run(3 * SECOND);
    assert_eq!(world.first(), second);
    let others: Vec<_> = rest.into_iter().filter(|name| *name != second).collect();
    world.choice.know(others.clone(), Vec::new());
    world.run(4 * SECOND);
    assert!(
        world
            .choice
            .addresses()
            .all(|address| others.iter().any(|o| o == address))
    );
    world.choice.know(Vec::new(), Vec::new());
    assert_eq!(world.choice.first(), None);
}

/// Outages of one manager at a time, with five seconds between them.
fn one_by_one(managers: usize) -> impl Strategy<Value = Vec<Outage>> {
    let outage = (0..managers, 0u64..20_000, 100u64..15_000);
    prop::collection::vec(outage, 0..6).prop_map(move |outages| {
        let mut now = ms(3000);
        let outages = outages.into_iter().map(|(manager, after, length)| {
            let from = now + ms(after);
            now = from + ms(length) + 5 * SECOND;
            Outage {
                manager: names(managers).remove(manager),
                from,
                until: from + ms(length),
            }
        });
        outages.collect()
    })
}

/// Any outages.
fn any_outages(managers: usize) -> impl Strategy<Value = Vec<Outage>> {
    let outage = (0..managers, 0u64..60_000, 1u64..30_000);
    prop::collection::vec(outage, 0..20).prop_map(move |outages| {
        let outages = outages.into_iter().map(|(manager, from, length)| Outage {
            manager: names(managers).remove(manager),
            from: ms(from),
            until: ms(from + length),
        });
        outages.collect()
    })
}

proptest! {
    /// Whenever its sessions end, an agent whose first choice answers leaves it for a manager that has answered only.
    #[test]
    fn sessions_that_end_do_not_lead_to_a_manager_that_never_answered(
        seed: u64,
        up in 0usize..5,
        given_up in prop::collection::vec(1u64..5_000, 1..40),
    ) {
        let is_up = |manager: &str| manager == names(5)[up] || manager == names(5)[(up + 1) % 5];
        let outages = names(5).into_iter().filter(|manager| !is_up(manager));
        let outages = outages.map(|manager| Outage { manager, from: Duration::ZERO, until: 1000 * SECOND });
        let mut world = World::new(seed, 5, outages.collect());
        for after in given_up {
            world.run(world.now + ms(after));
            let before = world.first();
            world.choice.give_up(&before);
            if is_up(&before) && world.choice.is_first_heard() {
                prop_assert!(is_up(&world.first()), "{before} was left for {}", world.first());
            }
        }
        // It gets away from those that are down.
        world.run(world.now + 100 * SECOND);
        prop_assert!(is_up(&world.first()));
    }

    /// Whichever manager is silent, the leader hears of the node through another one within two seconds.
    #[test]
    fn one_silent_manager_leaves_no_gap_of_two_seconds(
        seed: u64,
        (managers, outages) in (2usize..6).prop_flat_map(|n| (Just(n), one_by_one(n))),
    ) {
        let mut world = World::new(seed, managers, outages);
        world.run(ms(150_000));
        for pair in world.reached.windows(2) {
            prop_assert!(pair[1] - pair[0] <= ms(1800), "{pair:?}");
        }
        prop_assert!(world.now - *world.reached.last().unwrap() < SECOND);
    }

    /// An agent moves only away from a manager that was silent for half the grace, to one that answers; and it dials seldom.
    #[test]
    fn moves_are_justified_and_dials_bounded(
        seed: u64,
        (managers, outages) in (2usize..6).prop_flat_map(|n| (Just(n), any_outages(n))),
    ) {
        let mut world = World::new(seed, managers, outages.clone());
        world.run(ms(100_000));
        let up = |manager: &str, at: Duration| {
            !outages.iter().any(|o| o.manager == *manager && o.from <= at && at < o.until)
        };
        for pair in world.firsts.windows(2) {
            let ((_, before), (at, after)) = (&pair[0], &pair[1]);
            let lately = (0..20).map(|n| *at - ms(n * 100));
            prop_assert!(lately.clone().any(|then| !up(before, then)), "{pair:?}");
            prop_assert!(lately.take(12).any(|then| up(after, then)), "{pair:?}");
        }
        for window in world.dialed.windows(4) {
            prop_assert!(window[3].0 - window[0].0 >= SECOND, "{window:?}");
        }
    }
}
