use super::*;

#[test]
fn policies_of_services_have_rules() {
    let config = "sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}";
    let balancer = "type: LoadBalancer";
    let with = |fields: &str| format!("{balancer}\n  {fields}");
    for (to, wrong) in [
        (
            with("sessionAffinity: Cookie"),
            "spec.sessionAffinity: \"Cookie\" must be None or ClientIP",
        ),
        (
            with(config),
            "spec.sessionAffinityConfig: must be absent unless sessionAffinity",
        ),
        (
            with(
                "sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}",
            ),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401 must be from 1 to 86400",
        ),
        (
            with("externalTrafficPolicy: Near"),
            "spec.externalTrafficPolicy: \"Near\" must be Cluster or Local",
        ),
        (
            "type: ClusterIP\n  externalTrafficPolicy: Local".to_owned(),
            "spec.externalTrafficPolicy: \"Local\" must be absent unless",
        ),
        (
            with("internalTrafficPolicy: Near"),
            "spec.internalTrafficPolicy: \"Near\" must",
        ),
        (
            with("loadBalancerSourceRanges: [192.0.2.0/33]"),
            "spec.loadBalancerSourceRanges[0]: \"192.0.2.0/33\" must be a range",
        ),
        (
            "type: NodePort\n  loadBalancerSourceRanges: [192.0.2.0/24]".to_owned(),
            "spec.loadBalancerSourceRanges[0]: \"192.0.2.0/24\" must be absent unless",
        ),
    ] {
        let said = after(SERVICE, balancer, &to);
        assert!(said.iter().any(|it| it.contains(wrong)), "{to}: {said:?}");
    }
    let taken = [
        with(&format!("sessionAffinity: ClientIP\n  {config}")),
        with("externalTrafficPolicy: Local\n  internalTrafficPolicy: Local"),
        with("loadBalancerSourceRanges: [192.0.2.0/24, 10.0.0.1/32, 0.0.0.0/0]"),
        with("publishNotReadyAddresses: true"),
    ];
    for to in &taken {
        assert_eq!(after(SERVICE, balancer, to), [""; 0], "{to}");
        let object = read(&SERVICE.replace(balancer, to));
        assert_eq!(crate::level::of_object(&object), 9, "{to}");
    }
    // What Kubernetes does anyway needs no level, and is not kept.
    let usual =
        "sessionAffinity: None\n  externalTrafficPolicy: Cluster\n  internalTrafficPolicy: Cluster";
    let object = read(&SERVICE.replace(balancer, &with(usual)));
    assert_eq!(object, read(SERVICE));
    assert_eq!(crate::level::of_object(&object), 0);
}

#[test]
fn services_have_rules() {
    check(
        SERVICE,
        &[
            ("name: web", "name: 1web", "metadata.name: \"1web\" must"),
            (
                "port: 80,",
                "port: 0,",
                "spec.ports[0].port: 0 must be a port",
            ),
            (
                "port: 443,",
                "port: 80,",
                "spec.ports[1].port: 80 is there twice for TCP",
            ),
            (
                "name: https",
                "name: http",
                "spec.ports[1].name: \"http\" is the name of another",
            ),
            (
                ", name: https",
                "",
                "spec.ports[1].name: is required when there are several",
            ),
            (
                "port: 80,",
                "port: 80, targetPort: 70000,",
                "spec.ports[0].targetPort: 70000 must",
            ),
            (
                "port: 80,",
                "port: 80, targetPort: Web,",
                "spec.ports[0].targetPort: \"Web\" must",
            ),
            (
                "port: 80,",
                "port: 80, nodePort: 80,",
                "spec.ports[0].nodePort: 80 must be a port from 30000 to 32767",
            ),
            (
                "port: 80,",
                "port: 80, protocol: tcp,",
                "spec.ports[0].protocol: \"tcp\" must be TCP or UDP",
            ),
            (
                "type: LoadBalancer",
                "type: ExternalName",
                "spec.type: \"ExternalName\" must be",
            ),
            (
                "type: LoadBalancer",
                "clusterIP: 10.96.0",
                "spec.clusterIP: \"10.96.0\" must be an IPv4",
            ),
            (
                "type: LoadBalancer",
                "clusterIPs: [10.96.0.1]",
                "spec.clusterIPs: [\"10.96.0.1\"] must be clusterIP",
            ),
            (
                "type: LoadBalancer",
                "type: NodePort\n  clusterIP: None",
                "spec.clusterIP: must not be None",
            ),
        ],
    );
    assert_eq!(
        after(SERVICE, "type: LoadBalancer", "type: ClusterIP").len()
            + after(SERVICE, "port: 443,", "port: 80, protocol: UDP,").len()
            + after(SERVICE, "type: LoadBalancer", "clusterIP: None").len(),
        0
    );
    let node_port = SERVICE.replace("port: 80,", "port: 80, nodePort: 30080,");
    check(
        &node_port,
        &[
            (
                "type: LoadBalancer",
                "type: ClusterIP",
                "spec.ports[0].nodePort: 30080 must be absent",
            ),
            (
                "port: 443,",
                "port: 443, nodePort: 30080,",
                "spec.ports[1].nodePort: 30080 is there twice",
            ),
        ],
    );
}
