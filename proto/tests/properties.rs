//! Any object survives its text, and any quantity its form. Objects are generated from the descriptors, so that a new
//! field is covered without a change here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use barge_proto::{
    DESCRIPTOR_SET,
    kinds::KINDS,
    manifest::{self, Source},
    quantity::Amount,
    selector::Selector,
    v1::Object,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::{collection, option, prelude::*};
use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto as field,
};
use serde_json::{Map, Value, json};

/// Texts that YAML might take for something else, and any others.
fn text() -> BoxedStrategy<String> {
    let odd = [
        "",
        " ",
        "~",
        "null",
        "yes",
        "No",
        "y",
        "on",
        "true",
        "0",
        "1.0",
        "0755",
        "1e3",
        "1_000",
        ".inf",
        "0x10",
        "-",
        "- a",
        "? a",
        "a: b",
        "a #b",
        "#",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "\"a",
        "'a",
        "{",
        "[]",
        "---",
        "...",
        "<<",
        "=",
        " a",
        "a ",
        "a\n",
        "\n",
        "a\n\nb",
        "\ta",
        "a\r\nb",
        "\u{feff}a",
        "\u{85}",
        "\u{2028}",
        "\0",
        "\u{7f}",
        "2026-01-02",
        "12:30",
        "日本",
    ];
    prop_oneof![
        proptest::sample::select(odd.to_vec()).prop_map(str::to_owned),
        "[a-z0-9.-]{1,12}",
        proptest::collection::vec(any::<char>(), 0..8).prop_map(String::from_iter),
    ]
    .boxed()
}

fn time() -> BoxedStrategy<Value> {
    // The years 0 to 9999.
    (-62_167_219_200_i64..253_402_300_800)
        .prop_map(|seconds| json!(barge_proto::v1::Time::from_seconds(seconds)))
        .boxed()
}

fn quantity() -> BoxedStrategy<String> {
    let suffix = proptest::sample::select(vec![
        "", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "e3", "E-3",
    ]);
    ("-?[0-9]{1,6}(\\.[0-9]{0,4})?", suffix)
        .prop_map(|(number, suffix)| format!("{number}{suffix}"))
        .boxed()
}

/// The JSON of any message, each field present or not.
fn message(set: &FileDescriptorSet, name: &str) -> BoxedStrategy<Value> {
    match name {
        ".barge.v1.Time" => return time(),
        ".barge.v1.Quantity" => return quantity().prop_map(Value::from).boxed(),
        ".barge.v1.IntOrString" => {
            return prop_oneof![
                any::<i32>().prop_map(Value::from),
                text().prop_map(Value::from)
            ]
            .boxed();
        }
        _ => {}
    }
    let descriptor = set
        .file
        .iter()
        .flat_map(|file| &file.message_type)
        .find(|message| name == format!(".barge.v1.{}", message.name()))
        .expect(name);
    descriptor
        .field
        .iter()
        .map(|field| {
            let name = field.json_name().to_owned();
            option::of(field_value(set, descriptor, field))
                .prop_map(move |value| (name.clone(), value))
        })
        .collect::<Vec<_>>()
        .prop_map(|fields| {
            let present = fields
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)));
            Value::Object(Map::from_iter(present))
        })
        .boxed()
}

fn field_value(
    set: &FileDescriptorSet,
    descriptor: &DescriptorProto,
    field: &FieldDescriptorProto,
) -> BoxedStrategy<Value> {
    let entry = descriptor
        .nested_type
        .iter()
        .find(|nested| field.type_name().ends_with(&format!(".{}", nested.name())));
    if let Some(entry) = entry {
        let value = field_value(set, entry, &entry.field[1]);
        return collection::btree_map(text(), value, 0..3)
            .prop_map(|map| Value::Object(Map::from_iter(map)))
            .boxed();
    }
    let one = match field.r#type() {
        field::Type::String => text().prop_map(Value::from).boxed(),
        field::Type::Bool => any::<bool>().prop_map(Value::from).boxed(),
        field::Type::Int32 => prop_oneof![Just(0), any::<i32>()]
            .prop_map(Value::from)
            .boxed(),
        field::Type::Int64 => prop_oneof![Just(0), any::<i64>()]
            .prop_map(Value::from)
            .boxed(),
        field::Type::Bytes => collection::vec(any::<u8>(), 0..8)
            .prop_map(|bytes| Value::from(STANDARD.encode(bytes)))
            .boxed(),
        field::Type::Message => message(set, field.type_name()),
        other => panic!("{} has a type without JSON: {other:?}", field.name()),
    };
    match field.label() {
        field::Label::Repeated => collection::vec(one, 0..3).prop_map(Value::from).boxed(),
        _ => one,
    }
}

fn object() -> BoxedStrategy<(Value, Object)> {
    let set = FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap();
    let kinds: Vec<_> = KINDS
        .iter()
        .map(|info| {
            message(&set, &format!(".barge.v1.{}", info.message)).prop_map(move |mut json| {
                json["apiVersion"] = info.api_version.to_string().into();
                json["kind"] = info.name.to_string().into();
                json
            })
        })
        .collect();
    proptest::strategy::Union::new(kinds)
        .prop_map(|json| {
            let object = serde_json::from_value(json.clone()).unwrap();
            (json, object)
        })
        .boxed()
}

/// Whether everything that `given` says is in `printed`, but for what counts as absent.
fn is_kept(given: &Value, printed: Option<&Value>) -> bool {
    match (given, printed) {
        (Value::Object(given), Some(Value::Object(printed))) => given
            .iter()
            .all(|(key, value)| is_kept(value, printed.get(key))),
        (Value::Array(given), Some(Value::Array(printed))) => {
            given.len() == printed.len()
                && given
                    .iter()
                    .zip(printed)
                    .all(|(given, printed)| is_kept(given, Some(printed)))
        }
        // Quantities are printed in canonical form.
        (Value::String(given), Some(Value::String(printed))) => {
            given == printed
                || given
                    .parse::<Amount>()
                    .is_ok_and(|amount| amount.to_string() == *printed)
        }
        (given, Some(printed)) => given == printed,
        (given, None) => [json!(0), json!(""), json!(false), json!([]), json!({})].contains(given),
    }
}

fn read(text: String) -> Object {
    let mut objects = manifest::parse([Source::new("text", text.clone())])
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    objects.remove(0).object
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_object_survives_its_text((json, object) in object()) {
        prop_assert_eq!(&read(manifest::to_yaml(&object).unwrap()), &object);
        prop_assert_eq!(&read(manifest::to_json(&object).unwrap()), &object);
        prop_assert!(is_kept(&json, Some(&serde_json::to_value(&object).unwrap())));
        prop_assert_eq!(&Object::decode(object.encode_to_vec().as_slice()).unwrap(), &object);
    }

    #[test]
    fn validation_never_panics_and_defaults_are_stable((_, mut object) in object()) {
        let _ = barge_proto::validate::validate(&object);
        barge_proto::validate::default(&mut object);
        let once = object.clone();
        barge_proto::validate::default(&mut object);
        prop_assert_eq!(&object, &once);
        prop_assert_eq!(barge_proto::validate::validate_update(&once, &object), Ok(()));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(apiVersion: v1\nkind: (Pod|Service)\n)?[ -~\n]{0,60}") {
        if let Err(error) = manifest::parse([Source::new("text", text)]) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn canonical_quantities_are_fixed_points(text in quantity()) {
        let amount: Amount = text.parse().unwrap();
        let canonical = amount.to_string();
        let again: Amount = canonical.parse().unwrap();
        prop_assert_eq!(again, amount);
        prop_assert_eq!(again.to_string(), canonical);
    }

    #[test]
    fn quantities_are_numbers(a in -1_000_000_000_i64..1_000_000_000, b in -1_000_000_000_i64..1_000_000_000) {
        let (x, y) = (Amount::from_milli(a), Amount::from_bytes(b));
        prop_assert_eq!(x.milli(), Ok(a));
        prop_assert_eq!(y.whole(), Ok(b));
        prop_assert_eq!(x.cmp(&Amount::from_milli(b)), a.cmp(&b));
        prop_assert_eq!(x.cmp(&y), i128::from(a).cmp(&(i128::from(b) * 1000)));
        prop_assert_eq!(x.checked_add(Amount::from_milli(b)).unwrap().milli(), Ok(a + b));
        prop_assert_eq!(y.checked_sub(Amount::from_whole(a)).unwrap().whole(), Ok(b - a));
        prop_assert_eq!(y.to_string().parse::<Amount>().unwrap(), y);
    }

    #[test]
    fn any_selector_is_read_or_refused(text in "[a-z!=,() ]{0,20}") {
        if let Ok(selector) = text.parse::<Selector>() {
            prop_assert_eq!(selector.to_string().parse::<Selector>(), Ok(selector));
        }
    }
}
