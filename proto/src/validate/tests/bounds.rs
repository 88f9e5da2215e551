//! Lists without a bound are refused before their items are looked at.

use std::time::{Duration, Instant};

use super::*;
use crate::v1::{
    ConfigMapProjection, EnvVar, LocalObjectReference, ProjectedVolumeSource, Volume, VolumeMount,
    VolumeProjection,
};

/// The Deployment with this done to its pods.
fn with(change: impl FnOnce(&mut crate::v1::PodSpec)) -> Object {
    let mut object = read(DEPLOYMENT);
    let Some(Kind::Deployment(deployment)) = &mut object.kind else {
        panic!("no Deployment");
    };
    let template = deployment.spec.as_mut().unwrap().template.as_mut().unwrap();
    change(template.spec.as_mut().unwrap());
    object
}

fn told(object: &Object) -> Vec<String> {
    let told = validate(object).err().unwrap_or_default();
    let early = bounds(object).err().unwrap_or_default();
    let told: Vec<_> = told.iter().map(Violation::to_string).collect();
    let early: Vec<_> = early.iter().map(Violation::to_string).collect();
    assert_eq!(early, told, "it is told before anything is merged");
    told
}

fn variables(count: usize) -> Object {
    with(|spec| {
        let variable = |n| EnvVar {
            name: format!("V{n}"),
            ..EnvVar::default()
        };
        spec.containers[0].env = (0..count).map(variable).collect();
    })
}

fn optional(count: usize) -> Object {
    with(|spec| {
        let source = |n| VolumeProjection {
            config_map: Some(ConfigMapProjection {
                name: format!("c{n}"),
                optional: Some(true),
                ..ConfigMapProjection::default()
            }),
            ..VolumeProjection::default()
        };
        spec.volumes = vec![Volume {
            name: "all".into(),
            projected: Some(ProjectedVolumeSource {
                sources: (0..count).map(source).collect(),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        }];
    })
}

#[test]
fn a_list_that_is_too_long_is_named_with_its_limit() {
    assert_eq!(told(&variables(1000)), [""; 0]);
    assert_eq!(
        told(&variables(1001)),
        ["spec.template.spec.containers[0].env: 1001 items are too many: at most 1000 are allowed"]
    );
    let secrets = |count| {
        with(|spec| {
            let secret = |n| LocalObjectReference {
                name: format!("s{n}"),
            };
            spec.image_pull_secrets = (0..count).map(secret).collect();
        })
    };
    assert_eq!(told(&secrets(100)), [""; 0]);
    assert_eq!(
        told(&secrets(101)),
        ["spec.template.spec.imagePullSecrets: 101 items are too many: at most 100 are allowed"]
    );
}

#[test]
fn what_one_pod_uses_is_bounded() {
    assert_eq!(told(&optional(250)), [""; 0]);
    let told = told(&optional(251));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with(
            "spec.template.spec: 251 ConfigMaps and Secrets are used by one pod: at most 250"
        ),
        "{told:?}"
    );
}

#[test]
fn what_is_too_large_is_not_looked_at_item_by_item() {
    let object = with(|spec| {
        let volume = |n| Volume {
            name: format!("v{n}"),
            ..Volume::default()
        };
        spec.volumes = (0..60_000).map(volume).collect();
        let mount = |n: usize| VolumeMount {
            name: format!("v{}", 59_999 - n),
            mount_path: format!("/{n}"),
            ..VolumeMount::default()
        };
        spec.containers[0].volume_mounts = (0..60_000).map(mount).collect();
    });
    let begun = Instant::now();
    let found = validate(&object).unwrap_err();
    // Each mount beside each volume would be 3.6 billion comparisons.
    assert!(begun.elapsed() < Duration::from_secs(5));
    let found: Vec<_> = found.iter().map(Violation::to_string).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].contains("is too large"), "{found:?}");
    assert!(found[2].contains("volumeMounts: 60000 items"), "{found:?}");
}
