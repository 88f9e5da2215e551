//! Clients of UDP that keep their port.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Instant,
};

use super::*;

/// The promise is a second.
const DEADLINE: Duration = Duration::from_secs(10);

impl Space {
    /// Answers each datagram with a name.
    fn answer_datagrams(&self, port: u16, name: &'static str) {
        let socket = self.run(move || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        thread::spawn(move || {
            let mut datagram = [0; 16];
            while let Ok((_, client)) = socket.recv_from(&mut datagram) {
                let _ = socket.send_to(name.as_bytes(), client);
            }
        });
    }

    /// Somebody here who sends to one address, always from the same port.
    fn client(&self, address: &str) -> Client {
        let address: SocketAddr = address.parse().unwrap();
        let socket = self.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(address).unwrap();
            socket
        });
        let patience = Some(Duration::from_millis(100));
        socket.set_read_timeout(patience).unwrap();
        Client(socket)
    }
}

struct Client(UdpSocket);

impl Client {
    /// Who answers; empty when nobody does.
    fn asks(&self) -> String {
        let mut name = [0; 16];
        let answered = self.0.send(b"who").and_then(|_| self.0.recv(&mut name));
        String::from_utf8_lossy(&name[..answered.unwrap_or(0)]).into_owned()
    }

    /// Asks until this one answers, and goes on asking meanwhile.
    fn until(&self, name: &str) -> Duration {
        let begun = Instant::now();
        loop {
            let answered = self.asks();
            if answered == name {
                return begun.elapsed();
            }
            let waited = begun.elapsed();
            assert!(waited < DEADLINE, "{answered:?} answers and not {name:?}");
        }
    }
}

fn names() -> Service {
    let mut service = service("names", 1, "NodePort", "10.96.0.53", &[(53, 30053)]);
    for port in &mut service.spec.as_mut().unwrap().ports {
        port.protocol = "UDP".into();
    }
    service
}

fn answered_by(pods: &[&str]) -> Endpoints {
    let addresses: Vec<_> = pods.iter().map(|pod| (*pod, 5353)).collect();
    let mut endpoints = endpoints("names", "p53", &addresses);
    for port in endpoints.subsets.iter_mut().flat_map(|it| &mut it.ports) {
        port.protocol = "UDP".into();
    }
    endpoints
}

#[test]
fn a_client_of_udp_that_keeps_its_port_follows_the_endpoints() {
    let net = Net::new();
    net.pods[0].answer_datagrams(5353, "pod0");
    net.pods[1].answer_datagrams(5353, "pod1");
    // For the routes.
    net.assign(&[web()], &[]);
    let at = |pods: &[&str]| {
        let served = endpoints("web", "p80", &[("10.244.1.2", 8080)]);
        Arc::new(Net::desired(
            &[web(), names()],
            &[served, answered_by(pods)],
        ))
    };
    let recorder = Recorder::new(net.outbox.clone(), Arc::new(SystemClock));
    let rules = ServiceRules::new(Network::default(), recorder, net.published.subscribe());
    let (desired, receiver) = watch::channel(at(&[]));
    let _running = net.node.spawn(|stop| rules.run(receiver, stop));
    // Nobody answers yet; the node port is the machine's own meanwhile.
    let clients = [
        net.outside.client("192.0.2.1:30053"),
        net.pods[1].client("10.96.0.53:53"),
        net.node.client("10.96.0.53:53"),
    ];
    let past_services = net.pods[1].client("10.244.1.2:5353");
    assert!(clients.iter().all(|client| client.asks().is_empty()));
    desired.send_replace(at(&["10.244.1.2"]));
    for client in &clients {
        client.until("pod0");
    }
    past_services.until("pod0");
    let mut tcp = net.outside.connect("192.0.2.1:80").unwrap();
    assert_eq!(tcp.line(), "pod0 192.0.2.2");
    // The pod goes on answering; its connections of TCP go on, and nobody is sent to it any more.
    desired.send_replace(at(&["10.244.1.3"]));
    for client in &clients {
        let took = client.until("pod1");
        println!("{took:?}");
    }
    assert!(tcp.echoes());
    assert_eq!(past_services.asks(), "pod0");
    // An agent that was away meanwhile knows no older rules.
    drop(_running);
    let recorder = Recorder::new(net.outbox.clone(), Arc::new(SystemClock));
    let fresh = ServiceRules::new(Network::default(), recorder, net.published.subscribe());
    desired.send_replace(at(&["10.244.1.2"]));
    let receiver = desired.subscribe();
    let _running = net.node.spawn(|stop| fresh.run(receiver, stop));
    for client in &clients {
        client.until("pod0");
    }
    // One that has heard of no manager yet may have older Endpoints than those that it wrote into the kernel before.
    drop(_running);
    let recorder = Recorder::new(net.outbox.clone(), Arc::new(SystemClock));
    let fresh = ServiceRules::new(Network::default(), recorder, net.published.subscribe());
    let saved = Desired {
        epoch: 0,
        ..Desired::clone(&at(&["10.244.1.3"]))
    };
    desired.send_replace(Arc::new(saved));
    let receiver = desired.subscribe();
    let _running = net.node.spawn(|stop| fresh.run(receiver, stop));
    let begun = Instant::now();
    while net.node.client("10.96.0.53:53").asks() != "pod1" {
        assert!(begun.elapsed() < DEADLINE, "the rules are not written");
    }
    for client in &clients {
        assert_eq!(client.asks(), "pod0");
    }
    desired.send_replace(at(&["10.244.1.3"]));
    for client in &clients {
        client.until("pod1");
    }
}
