//! Pods that the agent wires, and beside them one that an older agent wired with a bridge.

use super::*;

impl Net {
    /// A pod on the bridge of an older agent.
    fn bridged(&self, address: &str) -> Space {
        let pod = Space::new();
        if !self.node.ip("link").contains("barge0") {
            self.node.bridge("barge0", "10.244.1.1/24");
        }
        let name = format!("old{}", address.rsplit('.').next().unwrap());
        self.node
            .plug("barge0", &pod, &name, &format!("{address}/24"));
        pod.ip("route add default via 10.244.1.1");
        let cared = || crate::runtime::care_for_bridge("/proc/sys".as_ref());
        self.node.run(cared).unwrap();
        pod.serve(8080, "old");
        pod
    }
}

#[test]
fn pods_reach_each_other_by_their_own_addresses() {
    let net = Net::new();
    net.assign(&[], &[]);
    let (name, client) = net.pods[0].ask("10.244.1.3:8080").unwrap();
    assert_eq!((name.as_str(), client), ("pod1", ip("10.244.1.2")));
    net.node.ask("10.244.1.2:8080").unwrap();
    assert!(!net.node.ip("link").contains("bridge_slave"));
    let inside = net.pods[0].ip("-4 address show eth0");
    assert!(inside.contains("inet 10.244.1.2/32"), "{inside}");
}

#[test]
fn a_pod_cannot_speak_in_the_name_of_another() {
    let net = Net::new();
    net.assign(&[], &[]);
    let pod = &net.pods[0];
    let speaks_as = |address: &str| {
        pod.ip(&format!("address replace {address}/32 dev lo"));
        let address: IpAddr = address.parse().unwrap();
        pod.run(move || {
            let socket = std::net::UdpSocket::bind((address, 0)).unwrap();
            socket.send_to(b"?", "192.0.2.2:9999").unwrap();
        });
    };
    let listener = net.outside.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:9999").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(700)))
            .unwrap();
        socket
    });
    let mut bytes = [0; 1];
    for wrong in ["10.244.1.3", "10.244.2.2", "192.0.2.1", "203.0.113.1"] {
        speaks_as(wrong);
        assert!(listener.recv_from(&mut bytes).is_err(), "{wrong}");
    }
    speaks_as("10.244.1.2");
    let (_, from) = listener.recv_from(&mut bytes).unwrap();
    assert_eq!(
        from.ip(),
        ip(NODE),
        "its own address goes out as the node's"
    );
    net.node.sh("nft", "flush chain inet barge sources");
    speaks_as("203.0.113.1");
    listener
        .recv_from(&mut bytes)
        .expect("the rule was what kept it in");
}

#[test]
fn pods_of_an_older_agent_and_new_ones_reach_each_other() {
    let net = Net::new();
    let old = [net.bridged("10.244.1.9"), net.bridged("10.244.1.10")];
    let both = endpoints("web", "p80", &[("10.244.1.9", 8080)]);
    net.assign(&[web()], &[both]);
    for address in ["10.244.1.9:8080", "10.96.0.10:80"] {
        let (name, client) = net.pods[0].ask(address).unwrap();
        assert_eq!((name.as_str(), client), ("old", ip("10.244.1.2")));
        assert_eq!(net.node.ask(address).unwrap().0, "old");
        // Itself and its neighbour on the bridge.
        assert_eq!(old[0].ask(address).unwrap().0, "old");
        assert_eq!(old[1].ask(address).unwrap().0, "old");
    }
    let (name, client) = old[0].ask("10.244.1.3:8080").unwrap();
    assert_eq!((name.as_str(), client), ("pod1", ip("10.244.1.9")));
    net.assign(
        &[web()],
        &[endpoints("web", "p80", &[("10.244.1.2", 8080)])],
    );
    let (name, client) = old[1].ask("10.96.0.10:80").unwrap();
    assert_eq!((name.as_str(), client), ("pod0", ip("10.244.1.10")));
}
