//! Ports of the nodes.

use barge_proto::v1::ManagerRecord;

use super::*;

#[test]
fn ports_that_the_nodes_need_are_refused() {
    let mut state = state();
    let mut draft = Draft::new();
    draft.put(ManagerRecord {
        metadata: Some(ObjectMeta {
            name: "m1".to_owned(),
            uid: "m1".to_owned(),
            ..ObjectMeta::default()
        }),
        address: "10.0.0.1:7443".to_owned(),
        ..ManagerRecord::default()
    });
    commit(&mut state, draft);
    let reserved = ReservedPorts::default();
    let refused = |state: &State, service: Object| {
        let stamp = Stamp {
            reserved: &reserved,
            ..STAMP
        };
        let objects = [service];
        let wanted = prepare(&objects, "", false).unwrap();
        let merged = merge(&wanted, &there(state, &wanted), &vault(), &stamp).unwrap();
        match plan(state, merged, &stamp, true) {
            Ok(_) => String::new(),
            Err(ApiError::Invalid(broken)) => {
                format!("{}: {}", broken[0].field, broken[0].description)
            }
            Err(error) => panic!("{error}"),
        }
    };
    let ssh = refused(&state, service("LoadBalancer", &[80, 22]));
    assert!(
        ssh.starts_with("service/web: spec.ports[1].port: 22: "),
        "{ssh}"
    );
    assert!(
        ssh.contains("SSH") && ssh.contains("--reserved-ports"),
        "{ssh}"
    );
    let manager = refused(&state, service("LoadBalancer", &[7443]));
    assert!(manager.contains("the manager 10.0.0.1:7443"), "{manager}");
    // On an address of its own a Service may have any port.
    assert_eq!(refused(&state, service("ClusterIP", &[22])), "");
    assert_eq!(refused(&state, service("NodePort", &[22])), "");
    // A change is refused like a creation.
    one(&mut state, service("ClusterIP", &[22])).unwrap();
    let changed = refused(&state, service("LoadBalancer", &[22]));
    assert!(changed.contains("spec.ports[0].port: 22"), "{changed}");
}
