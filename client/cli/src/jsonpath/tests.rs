use serde_json::{Value, json};

use super::*;

fn sample() -> Value {
    json!({
        "kind": "List",
        "items": [
            {
                "metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "web", "tier": "x"}},
                "spec": {"replicas": 3},
                "status": {"conditions": [
                    {"type": "Available", "status": "True"},
                    {"type": "Ready", "status": "False"},
                ]},
            },
            {
                "metadata": {"name": "b"},
                "spec": {"replicas": 10, "paused": true},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            },
            {"metadata": {"name": "c"}},
        ],
        "empty": [],
    })
}

fn render(text: &str) -> String {
    Template::parse(text).unwrap().render(&sample()).unwrap()
}

#[test]
fn fields_indexes_and_slices() {
    for (text, printed) in [
        ("kind={.kind}", "kind=List"),
        ("{$.kind}", "List"),
        ("{.items[0].metadata.name}", "a"),
        ("{.items[-1].metadata.name}", "c"),
        ("{.items[-1:].metadata.name}", "c"),
        ("{.items[0:2].metadata.name}", "a b"),
        ("{.items[::2].metadata.name}", "a c"),
        ("{.items[5:].metadata.name}", ""),
        ("{.items[0,2].metadata.name}", "a c"),
        ("{.items[*].metadata.name}", "a b c"),
        ("{.items[0]['metadata.name', 'spec.replicas']}", "a 3"),
        (
            "{.items[0].metadata.labels.app\\.kubernetes\\.io/name}",
            "web",
        ),
        (
            "{.items[0].metadata.labels['app.kubernetes.io/name']}",
            "web",
        ),
        ("{.items[*].spec.replicas}", "3 10"),
        ("{..replicas}", "3 10"),
        ("{.items[0].spec}", "{\"replicas\":3}"),
        ("{.missing.there}", ""),
        ("{.items[1].spec.paused}", "true"),
    ] {
        assert_eq!(render(text), printed, "{text}");
    }
}

#[test]
fn ranges_and_quotes() {
    assert_eq!(
        render("{range .items[*]}{.metadata.name}{\"\\t\"}{.spec.replicas}{'\\n'}{end}."),
        "a\t3\nb\t10\nc\t\n."
    );
    assert_eq!(
        render(
            "{range .items[*]}{.metadata.name}:{range .status.conditions[*]} {.type}{end};{end}"
        ),
        "a: Available Ready;b: Ready;c:;"
    );
    assert_eq!(render("{.kind}{\" it's {} \"}{.kind}"), "List it's {} List");
    assert_eq!(render("{range .items[*]}{$.kind}{end}"), "ListListList");
}

#[test]
fn filters_choose_items() {
    for (text, printed) in [
        ("{.items[?(@.metadata.name==\"b\")].spec.replicas}", "10"),
        ("{.items[?(@.spec.replicas>5)].metadata.name}", "b"),
        ("{.items[?(@.spec.replicas<=3)].metadata.name}", "a"),
        ("{.items[?(@.metadata.name!='b')].metadata.name}", "a c"),
        ("{.items[?(@.spec.paused)].metadata.name}", "b"),
        ("{.items[?(@.spec.paused == true)].metadata.name}", "b"),
        (
            "{.items[0].status.conditions[?(@.type==\"Ready\")].status}",
            "False",
        ),
        (
            "{.items[?(@.status.conditions[?(@.type=='Ready')].status=='True')].metadata.name}",
            "b",
        ),
    ] {
        assert_eq!(render(text), printed, "{text}");
    }
}

#[test]
fn an_index_beyond_the_end_is_told() {
    let template = Template::parse("{.empty[0].metadata.name}").unwrap();
    let error = template.render(&sample()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "array index out of bounds: index 0, length 0"
    );
}

#[test]
fn paths_need_neither_braces_nor_a_dot() {
    for text in [
        "{.metadata.name}",
        ".metadata.name",
        "metadata.name",
        "$.metadata.name",
    ] {
        let path = Template::path(text).unwrap();
        let object = json!({"metadata": {"name": "a"}});
        assert_eq!(path.values(&object).unwrap(), [&json!("a")], "{text}");
    }
    assert!(Template::path("{.a}{.b}").is_err());
    assert!(Template::path("range .items[*]").is_err());
}

#[test]
fn errors_say_where() {
    for (text, part) in [
        ("{.a", "at character 4: the brace is not closed"),
        ("{items}", "a field begins with a dot ({.items})"),
        ("{range .a}{.b}", "without an {end}"),
        ("{.a}{end}", "{end} without a {range}"),
        ("{.a[}", "expected an index"),
        ("{.a[1}", "expected ']', found '}'"),
        ("{.a[?(@.b=c)]}", "expected =="),
        ("{.a[?(@.b==c)]}", "\"c\" is neither a path"),
        ("{\"a}", "the quotes are not closed"),
        ("{.a[::0]}", "0 is no step"),
        ("{.a[99999999999999999999]}", "is no index"),
    ] {
        let error = Template::parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn recursion_is_bounded() {
    let deep = "{range .a}".repeat(100) + &"{end}".repeat(100);
    assert!(
        Template::parse(&deep)
            .unwrap_err()
            .to_string()
            .contains("in each other")
    );
    let filters = format!("{{.a{}", "[?(@.a".repeat(1000));
    assert!(
        Template::parse(&filters)
            .unwrap_err()
            .to_string()
            .contains("in each other")
    );
    let mut value = json!(1);
    for _ in 0..100 {
        value = json!({"a": value, "b": [1, 2, 3]});
    }
    let template = Template::parse(&format!("{{{}}}", "..*".repeat(40))).unwrap();
    assert_eq!(template.render(&value), Err(EvalError::TooMany));
}
