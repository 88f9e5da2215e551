//! The fields that charts use, as counted over the manifests that many of them render: each is taken, or is on the list of what waits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use barge_proto::{
    manifest::{self, Source},
    v1::Object,
    validate,
};

/// Reads objects and checks them, as applying does. The error is what people would read.
fn apply(text: &str) -> Result<Vec<Object>, String> {
    let located = manifest::parse([Source::new("chart.yaml", text)]);
    let located = located.map_err(|error| error.to_string())?;
    let objects = located.into_iter().map(|located| {
        let mut object = located.object;
        validate::default(&mut object);
        let checked = validate::validate(&object);
        let sentences = |broken: Vec<validate::Violation>| {
            let sentences = broken.iter().map(ToString::to_string);
            sentences.collect::<Vec<_>>().join("\n")
        };
        checked.map(|()| object).map_err(sentences)
    });
    objects.collect()
}

/// A line's manifest.
fn manifest_of(place: &str, fields: &str) -> String {
    let (own, of_pod, of_container) = match place {
        // With a volume, for those that mount one.
        "container" => (
            String::new(),
            "volumes: [{name: v, emptyDir: {}}], ".to_owned(),
            format!(", {fields}"),
        ),
        "pod" => (String::new(), format!("{fields}, "), String::new()),
        "deployment" => (format!("{fields}, "), String::new(), String::new()),
        kind => {
            let (version, kind) = kind.split_once(' ').expect("a version and a kind");
            let fields = fields.replace("\\n", "\n");
            return format!(
                "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n{fields}\n"
            );
        }
    };
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\nspec: {{{own}selector: {{matchLabels: {{app: a}}}}, template: \
         {{metadata: {{labels: {{app: a}}}}, spec: {{{of_pod}containers: [{{name: a, image: a{of_container}}}]}}}}}}\n"
    )
}

/// Whether what was found is the fate that a line names.
fn is_so(found: &Result<Vec<Object>, String>, place: &str, fate: &str) -> bool {
    let page = include_str!("../../docs/guide/kubernetes-fields.md");
    let (_, waits) = page.split_once("## Refused").expect("such a part");
    let refused = |name: &str| {
        let words = format!("`{name}` is a field of Kubernetes that Barge does not implement");
        found.as_ref().is_err_and(|error| error.contains(&words))
    };
    match fate.split_once(' ') {
        None if fate == "taken" => found.is_ok(),
        Some(("waits", name)) => refused(name) && waits.contains(&format!("{name}` |")),
        Some(("no", "kind")) => {
            let (_, kind) = place.split_once(' ').expect("a version and a kind");
            found.as_ref().is_err_and(|error| error.contains("kind"))
                && waits.contains(&format!("`{kind}`"))
        }
        _ => panic!("{fate:?} is no fate"),
    }
}

#[test]
fn what_charts_use_is_taken_or_on_the_list_of_what_waits() {
    let table = include_str!("golden/charts.txt");
    let lines = table.lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut wrong = String::new();
    let mut count = 0;
    for line in lines {
        let (rest, fate) = line.rsplit_once(" | ").expect("what becomes of it");
        let (place, fields) = rest.split_once(" | ").expect("where it stands");
        let found = apply(&manifest_of(place, fields));
        if !is_so(&found, place, fate) {
            let found = found.map(|objects| objects.len());
            wrong += &format!("{line}\n{found:?}\n\n");
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 130, "{count}");
}

/// The charts of the end-to-end tests, which are what a scaffold renders.
#[test]
fn rendered_charts_are_taken() {
    for text in [
        include_str!("../../tests/fixtures/chart-defaults.yaml"),
        include_str!("../../tests/fixtures/chart-empties.yaml"),
        include_str!("../../tests/fixtures/chart-values.yaml"),
    ] {
        let objects = apply(text).unwrap();
        assert!(objects.len() >= 3, "{objects:?}");
    }
}
