#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn strings_select() {
    let web = labels(&[("app", "web"), ("tier", "front"), ("example.com/x", "")]);
    for (text, selects) in [
        ("", true),
        ("  ", true),
        ("app=web", true),
        ("app==web", true),
        (" app = web , tier = front ", true),
        ("app=db", false),
        ("app!=db", true),
        ("app!=web", false),
        ("absent!=x", true),
        ("app in (web)", true),
        ("app in (db, web),tier", true),
        ("app in (db,cache)", false),
        ("app notin (db,cache)", true),
        ("app notin (web)", false),
        ("absent notin (web)", true),
        ("tier", true),
        ("absent", false),
        ("!absent", true),
        ("! tier", false),
        ("example.com/x=", true),
        ("example.com/x", true),
        ("app=web,tier=back", false),
        ("in in (in)", false),
    ] {
        let selector: Selector = text.parse().expect(text);
        assert_eq!(selector.matches(&web), selects, "{text}");
        assert_eq!(selector.to_string().parse(), Ok(selector), "{text}");
    }
}

#[test]
fn nonsense_is_pointed_at() {
    for (text, place) in [
        ("app=web tier=db", 9),
        ("=web", 1),
        ("app=web,", 9),
        (",", 1),
        ("app in web", 8),
        ("app in (web", 12),
        ("app in (web;db)", 12),
        ("app like web", 5),
        ("app=wéb", 6),
        ("!", 2),
    ] {
        match text.parse::<Selector>() {
            Err(SelectorError::Syntax { at, .. }) => assert_eq!(at, place, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert!(matches!(
        "-app=web".parse::<Selector>(),
        Err(SelectorError::Key { .. })
    ));
}

#[test]
fn expressions_of_manifests_select() {
    let expression = |operator: &str, values: &[&str]| LabelSelectorRequirement {
        key: "app".to_owned(),
        operator: operator.to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let selector = |expression| {
        Selector::try_from(&LabelSelector {
            match_labels: labels(&[("tier", "front")]),
            match_expressions: vec![expression],
        })
    };
    let both = labels(&[("app", "web"), ("tier", "front")]);
    for (operator, values, selects) in [
        ("In", &["db", "web"][..], true),
        ("NotIn", &["web"], false),
        ("Exists", &[], true),
        ("DoesNotExist", &[], false),
    ] {
        let selector = selector(expression(operator, values)).unwrap();
        assert_eq!(selector.matches(&both), selects, "{operator}");
        assert!(!selector.matches(&labels(&[("app", "web")])));
    }
    for (operator, values) in [("in", &["a"][..]), ("In", &[]), ("Exists", &["a"])] {
        assert!(
            selector(expression(operator, values)).is_err(),
            "{operator}"
        );
    }
}
