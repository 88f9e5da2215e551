use super::*;

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
