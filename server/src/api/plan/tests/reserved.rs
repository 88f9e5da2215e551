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
            ..STAMP.clone()
        };
        let objects = [service];
        let wanted = prepare(&KINDS, &objects, "", false).unwrap();
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

#[test]
fn a_node_port_that_is_drawn_is_not_reserved() {
    let state = state();
    let reserved: ReservedPorts = "30000-32000,32002-32767".parse().unwrap();
    for seed in 0..50 {
        let stamp = Stamp {
            reserved: &reserved,
            seed,
            ..STAMP.clone()
        };
        let objects = [service("NodePort", &[80])];
        let wanted = prepare(&KINDS, &objects, "", false).unwrap();
        let merged = merge(&wanted, &there(&state, &wanted), &vault(), &stamp).unwrap();
        let (_, planned) = plan(&state, merged, &stamp, true).unwrap().unwrap();
        let object = planned.into_iter().next().unwrap().object.unwrap();
        let service = Service::try_from(object).unwrap();
        assert_eq!(service.spec.unwrap().ports[0].node_port, 32001);
    }
}

#[test]
fn a_node_port_of_before_that_is_reserved_now_is_named_as_such() {
    let mut state = state();
    one(&mut state, service("NodePort", &[80])).unwrap();
    let port = get::<Service>(&state, Kind::Service, "default", "web");
    let port = port.spec.unwrap().ports[0].node_port;
    let reserved: ReservedPorts = port.to_string().parse().unwrap();
    let stamp = Stamp {
        reserved: &reserved,
        ..STAMP.clone()
    };
    let objects = [service("NodePort", &[80, 81])];
    let wanted = prepare(&KINDS, &objects, "", false).unwrap();
    let merged = merge(&wanted, &there(&state, &wanted), &vault(), &stamp).unwrap();
    let refused = plan(&state, merged, &stamp, true).unwrap_err().to_string();
    assert!(refused.contains("--reserved-ports"), "{refused}");
}

/// In whatever order they stand in the manifest.
#[test]
fn a_node_port_goes_from_one_service_to_another_in_one_request() {
    let named = |name: &str, port: i32| {
        let mut object = service("NodePort", &[80]);
        object.metadata_mut().unwrap().name = name.to_owned();
        if let Some(object::Kind::Service(service)) = &mut object.kind {
            service.spec.as_mut().unwrap().ports[0].node_port = port;
        }
        object
    };
    let port = |state: &State, name: &str| {
        let service: Service = get(state, Kind::Service, "default", name);
        service.spec.unwrap().ports[0].node_port
    };
    for reversed in [false, true] {
        let mut state = state();
        let before = vec![named("a", 30080), named("b", 30081), named("c", 30082)];
        apply(&mut state, before).unwrap();
        // Each takes the port of the one before it, and the first one a new one.
        let mut after = vec![named("a", 30090), named("b", 30080), named("c", 30081)];
        if reversed {
            after.reverse();
        }
        apply(&mut state, after).unwrap();
        let ports = ["a", "b", "c"].map(|name| port(&state, name));
        assert_eq!(ports, [30090, 30080, 30081]);
        // One that stays where it is gives nothing.
        let taken = vec![named("c", 30080), named("b", 30080)];
        let error = apply(&mut state, taken).unwrap_err();
        assert!(
            format!("{error:?}").contains("another Service has it"),
            "{error:?}"
        );
        // Two that exchange theirs would each have to be first.
        let exchanged = vec![named("b", 30081), named("c", 30080)];
        assert!(apply(&mut state, exchanged).is_err());
        assert_eq!(port(&state, "b"), 30080);
    }
}
