//! Which tokens are wanted, here and due: values and no waiting.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Answer, Token, TokenRequest};

/// The part of a token's life after which it is replaced, and by how much earlier it may be, so that tokens that were made together part.
const RENEW: f64 = 0.8;
const EARLIER: f64 = 0.1;
/// The life of a token, whatever a manager says: a day is the most that can be asked for, and tokens of less than a minute would be asked for, and written, without end.
const LIFE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(86_400));
/// Before another try: after the first failure, and at most. Each is up to half shorter by chance.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// All tokens that pods of this node use.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<TokenRequest, Entry>);

#[derive(Debug)]
struct Entry {
    token: Option<Arc<Token>>,
    /// When it is to be asked for; `None` while it is.
    due: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    why: Option<String>,
    /// Its end was told.
    told: bool,
    /// The account's uid, if there was word of it; empty when there is no such account.
    account: Option<String>,
    /// Whether the account is another one since the token was asked for.
    outdated: bool,
}

impl Table {
    /// What is here of a token that is wanted; the outer `None` when it is not.
    #[allow(clippy::option_option, reason = "wanted and here are two questions")]
    pub fn get(&self, request: &TokenRequest) -> Option<Option<Arc<Token>>> {
        self.0.get(request).map(|entry| entry.token.clone())
    }

    /// Wants one from now on.
    pub fn want(&mut self, request: TokenRequest, now: Instant) {
        self.0.entry(request).or_insert(Entry {
            token: None,
            due: Some(now),
            failures: 0,
            why: None,
            told: false,
            account: None,
            outdated: false,
        });
    }

    /// Takes note of the accounts as they are: a token of one that was made anew is worth nothing, and due. `uid_of` is nothing while nobody can say, and
    /// empty for an account that is not there.
    pub fn note(&mut self, now: Instant, uid_of: impl Fn(&TokenRequest) -> Option<String>) {
        for (request, entry) in &mut self.0 {
            let Some(uid) = uid_of(request) else {
                continue;
            };
            let before = entry.account.replace(uid);
            if before.is_none() || before == entry.account {
                continue;
            }
            match entry.due {
                Some(due) => entry.due = Some(due.min(now)),
                None => entry.outdated = true,
            }
        }
    }

    /// Why the last try failed.
    pub fn why_not(&self, request: &TokenRequest) -> Option<String> {
        self.0.get(request)?.why.clone()
    }

    /// Forgets the tokens of pods.
    pub fn forget(&mut self, is_gone: impl Fn(&str) -> bool) {
        self.0.retain(|request, _| !is_gone(&request.pod_uid));
    }

    /// At most `most` tokens that are to be asked for now, what pods wait for first. They count as asked for.
    pub fn due(&mut self, now: Instant, most: usize) -> Vec<TokenRequest> {
        let mut due: Vec<_> = self
            .0
            .iter_mut()
            .filter(|(_, entry)| entry.due.is_some_and(|due| due <= now))
            .collect();
        due.sort_by_key(|(_, entry)| (entry.token.is_some(), entry.due));
        due.truncate(most);
        let taken = due.into_iter().map(|(request, entry)| {
            entry.due = None;
            request.clone()
        });
        taken.collect()
    }

    /// When there is something to do: a token is due, if there is room for another question, or one ends.
    pub fn next(&self, now: Instant, has_room: bool) -> Option<Instant> {
        let entries = self.0.values();
        let moments = entries.flat_map(|entry| {
            let due = entry.due.filter(|_| has_room);
            let ends = entry.token.as_ref().map(|token| token.ends);
            [due, ends.filter(|ends| !entry.told && *ends > now)]
        });
        moments.flatten().min()
    }

    /// Tokens that have ended since this was asked last, and why there is no other.
    pub fn ended(&mut self, now: Instant) -> Vec<(TokenRequest, String)> {
        let ended = self.0.iter_mut().filter_map(|(request, entry)| {
            let token = entry.token.as_ref()?;
            if entry.told || token.ends > now {
                return None;
            }
            entry.told = true;
            let why = entry.why.clone();
            let why = why.unwrap_or_else(|| "it was not asked for in time".to_owned());
            Some((request.clone(), why))
        });
        ended.collect()
    }

    /// Takes an answer. `chance` is a number between 0 and 1.
    pub fn take(
        &mut self,
        request: &TokenRequest,
        answer: Result<Answer, String>,
        now: Instant,
        chance: f64,
    ) {
        // The pod may be gone meanwhile.
        let Some(entry) = self.0.get_mut(request) else {
            return;
        };
        match answer {
            Ok(Answer { value, life }) => {
                let life = life.clamp(LIFE.0, LIFE.1);
                let part = RENEW - EARLIER * chance;
                let life_left = life.mul_f64(part).max(PAUSE.0);
                let again = if entry.outdated { PAUSE.0 } else { life_left };
                *entry = Entry {
                    token: Some(Arc::new(Token {
                        value,
                        ends: now + life,
                    })),
                    // A manager that gives tokens of no life is not asked without end.
                    due: Some(now + again),
                    failures: 0,
                    why: None,
                    told: false,
                    account: entry.account.take(),
                    outdated: false,
                };
            }
            Err(why) => {
                let (first, longest) = PAUSE;
                let pause = first
                    .saturating_mul(1 << entry.failures.min(6))
                    .min(longest);
                entry.due = Some(now + pause.mul_f64(1.0 - chance / 2.0));
                entry.failures = entry.failures.saturating_add(1);
                entry.why = Some(why);
                // The next try is by the account as it is by then.
                entry.outdated = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(pod: &str) -> TokenRequest {
        TokenRequest {
            pod_uid: pod.to_owned(),
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            account: "ci".to_owned(),
            audience: String::new(),
            expiration_seconds: 3600,
        }
    }

    fn answer(value: &str) -> Result<Answer, String> {
        Ok(Answer {
            value: value.to_owned(),
            life: Duration::from_secs(1000),
        })
    }

    #[test]
    fn a_token_is_replaced_before_it_ends() {
        let (mut table, start) = (Table::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let a = request("a");
        assert_eq!(table.get(&a), None);
        table.want(a.clone(), start);
        assert_eq!(table.get(&a), Some(None));
        assert_eq!(table.due(start, 4), std::slice::from_ref(&a));
        assert!(table.due(start, 4).is_empty(), "it is asked for already");
        table.take(&a, answer("1"), start, 0.0);
        assert_eq!(table.get(&a).flatten().unwrap().value, "1");
        assert_eq!(table.next(start, true), Some(at(800)));
        assert_eq!(table.next(start, false), Some(at(1000)));
        assert!(table.due(at(799), 4).is_empty());
        assert_eq!(table.due(at(800), 4), std::slice::from_ref(&a));
        table.take(&a, answer("2"), at(800), 1.0);
        assert_eq!(table.next(at(800), true), Some(at(1500)));
        assert!(table.ended(at(1700)).is_empty());
    }

    #[test]
    fn no_manager_s_word_makes_a_token_live_for_ever_or_not_at_all() {
        let (mut table, start) = (Table::default(), Instant::now());
        let a = request("a");
        table.want(a.clone(), start);
        let mut renewed_after = |life| {
            table.due(start, 4);
            let value = "1".to_owned();
            table.take(&a, Ok(Answer { value, life }), start, 0.0);
            let next = table.next(start, true).unwrap();
            table.0.get_mut(&a).unwrap().due = Some(start);
            next - start
        };
        assert_eq!(renewed_after(Duration::MAX), Duration::from_secs(69_120));
        assert_eq!(renewed_after(Duration::ZERO), Duration::from_secs(48));
        assert_eq!(
            renewed_after(Duration::from_secs(600)),
            Duration::from_secs(480)
        );
    }

    #[test]
    fn without_a_manager_the_old_one_stays_and_its_end_is_told_once() {
        let (mut table, start) = (Table::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let a = request("a");
        table.want(a.clone(), start);
        table.due(start, 4);
        table.take(&a, answer("1"), start, 0.0);
        let (mut now, mut tries) = (at(800), 0);
        while now < at(1000) {
            assert_eq!(table.due(now, 4), std::slice::from_ref(&a));
            table.take(&a, Err("away".to_owned()), now, 0.0);
            tries += 1;
            now = table.next(now, true).unwrap();
        }
        // 1, 2, 4, 8, 16, 32, 60, 60 s.
        assert_eq!(tries, 9);
        assert_eq!(table.why_not(&a).unwrap(), "away");
        assert_eq!(table.get(&a).flatten().unwrap().value, "1");
        assert_eq!(table.ended(at(1000)), [(a.clone(), "away".to_owned())]);
        assert!(table.ended(at(2000)).is_empty());
        table.due(at(2000), 4);
        table.take(&a, answer("2"), at(2000), 0.0);
        assert_eq!(table.why_not(&a), None);
        assert_eq!(table.ended(at(3000)).len(), 1);
    }

    #[test]
    fn a_token_of_an_account_that_was_made_anew_is_replaced_at_once() {
        let (mut table, start) = (Table::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let a = request("a");
        let is = |uid: &str| {
            let uid = uid.to_owned();
            move |_: &TokenRequest| Some(uid.clone())
        };
        table.want(a.clone(), start);
        table.note(start, is("one"));
        table.due(start, 4);
        table.take(&a, answer("1"), start, 0.0);
        table.note(at(1), is("one"));
        table.note(at(1), |_| None);
        assert!(table.due(at(1), 4).is_empty());
        // Gone, and there again.
        table.note(at(2), is(""));
        assert_eq!(table.due(at(2), 4), std::slice::from_ref(&a));
        table.note(at(3), is("two"));
        // It was asked for before: it may be the earlier account's.
        table.take(&a, answer("2"), at(3), 0.0);
        assert_eq!(table.due(at(4), 4), std::slice::from_ref(&a));
        table.take(&a, Err("away".to_owned()), at(4), 0.0);
        assert_eq!(table.get(&a).flatten().unwrap().value, "2");
        assert_eq!(table.due(at(5), 4), std::slice::from_ref(&a));
        table.take(&a, answer("3"), at(5), 0.0);
        assert!(table.due(at(700), 4).is_empty());
    }

    #[test]
    fn pods_that_wait_come_first_and_pods_that_went_are_forgotten() {
        let (mut table, start) = (Table::default(), Instant::now());
        let late = start + Duration::from_secs(900);
        for pod in ["a", "b"] {
            table.want(request(pod), start);
            table.due(start, 1);
            table.take(&request(pod), answer("1"), start, 0.0);
        }
        table.want(request("new"), late);
        assert_eq!(table.due(late, 1), [request("new")]);
        table.forget(|uid| uid == "new");
        table.take(&request("new"), answer("1"), late, 0.0);
        assert_eq!(table.get(&request("new")), None);
        assert_eq!(table.due(late, 4).len(), 2);
    }
}
