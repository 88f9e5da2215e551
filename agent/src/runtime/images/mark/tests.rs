#![allow(clippy::unwrap_used)]
use super::*;

const NAME: &str = "example.com/app:1";

fn digest(of: char) -> String {
    format!("sha256:{}", of.to_string().repeat(64))
}

fn ticket(secret: &str, password: &str) -> Ticket {
    Ticket {
        login: Login::Password("me".into(), password.into()),
        namespace: "shop".into(),
        name: secret.into(),
        uid: format!("uid-{secret}"),
    }
}

/// Labels of a record after pulls, each by a ticket or as the node.
fn labels(pulls: &[Option<Ticket>]) -> HashMap<String, String> {
    let mut labels: Option<HashMap<String, String>> = None;
    for by in pulls {
        let digest = digest('a');
        let before = labels.as_ref().map(|labels| Before {
            digest: &digest,
            labels,
        });
        let label = after(NAME, before, &digest, by.as_ref(), salt());
        let mut made = stored::labels(NAME);
        if !label.is_empty() {
            made.insert(LABEL.to_owned(), label);
        }
        labels = Some(made);
    }
    labels.unwrap()
}

#[test]
fn an_image_that_a_secret_brought_is_for_that_secret() {
    let labels = labels(&[Some(ticket("one", "hunter2"))]);
    assert!(!labels[LABEL].contains("hunter2"));
    let mark = Mark::of(NAME, &digest('a'), &labels).unwrap();
    assert!(mark.admits(&ticket("one", "hunter2")));
    assert!(mark.admits(&ticket("one", "changed")), "the same Secret");
    assert!(mark.admits(&ticket("two", "hunter2")), "the same password");
    assert!(!mark.admits(&ticket("two", "other")));
    let again = Ticket {
        uid: "other".into(),
        ..ticket("one", "other")
    };
    assert!(!mark.admits(&again), "another Secret of the name");
    let unknown = |name: &str| PullSecret {
        namespace: "shop".into(),
        name: name.into(),
        uid: String::new(),
        keyring: None,
    };
    assert!(mark.admits_unknown(&unknown("one")));
    assert!(!mark.admits_unknown(&unknown("two")));
}

#[test]
fn who_was_let_in_later_joins_and_the_oldest_goes() {
    let ticket = |n: usize| ticket(&format!("s{n}"), &format!("p{n}"));
    let pulls: Vec<_> = (0..MOST + 2).map(|n| Some(ticket(n))).collect();
    let labels = labels(&pulls);
    // containerd takes no longer ones.
    assert!(LABEL.len() + labels[LABEL].len() <= 4096);
    let mark = Mark::of(NAME, &digest('a'), &labels).unwrap();
    let admitted: Vec<_> = (0..MOST + 2).filter(|n| mark.admits(&ticket(*n))).collect();
    assert_eq!(admitted, (2..MOST + 2).collect::<Vec<_>>());
}

#[test]
fn what_the_node_may_have_is_for_all() {
    for pulls in [
        vec![None],
        vec![Some(ticket("one", "p")), None],
        vec![None, Some(ticket("one", "p"))],
    ] {
        assert_eq!(Mark::of(NAME, &digest('a'), &labels(&pulls)), None);
    }
}

#[test]
fn a_mark_is_for_its_record_alone() {
    let labels = labels(&[Some(ticket("one", "p"))]);
    // Tagged by hand, which copies the labels.
    assert_eq!(Mark::of("other:1", &digest('a'), &labels), None);
    // Pulled anew by an agent that knows no marks.
    assert_eq!(Mark::of(NAME, &digest('b'), &labels), None);
    // Pulled anew by this one.
    let before = digest('a');
    let before = Before {
        digest: &before,
        labels: &labels,
    };
    let label = after(
        NAME,
        Some(before),
        &digest('b'),
        Some(&ticket("two", "q")),
        salt(),
    );
    let mut newer = stored::labels(NAME);
    newer.insert(LABEL.to_owned(), label);
    let mark = Mark::of(NAME, &digest('b'), &newer).unwrap();
    assert!(mark.admits(&ticket("two", "q")) && !mark.admits(&ticket("one", "p")));
}

#[test]
fn of_a_mark_that_cannot_be_read_nobody_is_known() {
    for text in ["x", "sha256:1", "2 sha256:1 a.b.c", " "] {
        let mut labels = stored::labels(NAME);
        labels.insert(LABEL.to_owned(), text.to_owned());
        let found = Mark::of(NAME, &digest('a'), &labels).map(|it| it.admits(&ticket("one", "p")));
        assert_eq!(found, Some(false), "{text}");
    }
}
