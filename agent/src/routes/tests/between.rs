//! Real connections between pods of nodes that share no link, through a router, with the rules of Services.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
};

use super::*;
use crate::services::{
    model::{self, Inputs},
    nft::Nft,
    script, sysctl,
};

/// A node with a pod.
struct Host {
    space: Space,
    pod: Space,
    setting: Setting,
    desired: Desired,
}

/// Node 1 and node 2 are on a link; node 3 is behind the router, whose leg to it takes packets of 1,400 bytes.
const NODES: [(&str, &str, &str); 3] = [
    ("10.244.1.0/24", "192.0.2.1", "10.244.1.2"),
    ("10.244.2.0/24", "192.0.2.2", "10.244.2.2"),
    ("10.244.3.0/24", "198.51.100.3", "10.244.3.2"),
];

struct Net {
    router: Space,
    hosts: [Host; 3],
}

impl Host {
    fn new(number: usize, mode: Mode) -> Self {
        let (range, address, pod_address) = NODES[number];
        let peers: Vec<_> = NODES
            .iter()
            .filter(|node| node.0 != range)
            .map(|node| (node.0, node.1))
            .collect();
        let (space, pod) = (Space::new(), Space::new());
        space.run(|| sysctl::prepare("/proc/sys".as_ref()).unwrap());
        space.wire(&pod, pod_address);
        pod.serve(8080, ["pod1", "pod2", "pod3"][number]);
        Self {
            space,
            pod,
            setting: setting(mode, address),
            desired: assigned(range, &peers),
        }
    }

    /// What an agent does when it starts.
    fn begin(&self) {
        let outcome = bring(&self.space, self.setting, &self.desired);
        // By a direct route to a node that is on no link of it there is no way.
        assert!(self.setting.mode == Mode::Direct || outcome == Outcome::default());
        let peers = || self.desired.peers.values();
        let (rules, _) = model::rules(&Inputs {
            own_range: self.desired.pod_cidr().parse().ok(),
            peer_ranges: peers().map(|it| it.pod_cidr.parse().unwrap()).collect(),
            peers: peers().map(|it| it.address.parse().unwrap()).collect(),
            own_address: self.setting.address,
            vxlan: self.setting.vxlan_port(),
            ..Inputs::default()
        });
        let rules = script::replace(&rules);
        let applied = async move { Nft::default().apply(&rules).await };
        self.space.block_on(applied).unwrap();
    }
}

impl Net {
    fn new(modes: [Mode; 3]) -> Self {
        let router = Space::new();
        let mut number = 0;
        let hosts = modes.map(|mode| {
            number += 1;
            Host::new(number - 1, mode)
        });
        router.bridge("near", "192.0.2.254/24");
        router.plug("near", &hosts[0].space, "to1", "192.0.2.1/24");
        router.plug("near", &hosts[1].space, "to2", "192.0.2.2/24");
        let far = ("far", "198.51.100.254/24");
        router.cable(far, &hosts[2].space, ("eth0", "198.51.100.3/24"));
        router.run(|| {
            sysctl::prepare("/proc/sys".as_ref()).unwrap();
            // Where `br_netfilter` is loaded: node 1 and node 2 are on a link, whatever the router's rules are.
            let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
        });
        router.ip("link set far mtu 1400");
        hosts[2].space.ip("link set eth0 mtu 1400");
        // Nobody is told that a packet is too large, and no packet of a pod goes this way by itself.
        let silent = "table inet r { chain o { type filter hook output priority 0; icmp type destination-unreachable drop; }; \
                      chain f { type filter hook forward priority 0; icmp type destination-unreachable drop; ip saddr 10.244.0.0/16 drop; }; }";
        router.nft(silent);
        for (host, via) in hosts
            .iter()
            .zip(["192.0.2.254", "192.0.2.254", "198.51.100.254"])
        {
            host.space.ip(&format!("route add default via {via}"));
            host.begin();
        }
        Self { router, hosts }
    }

    fn pod(&self, number: usize) -> &Space {
        &self.hosts[number - 1].pod
    }

    /// The pod of one node asks that of another, which sees its address.
    fn ask(&self, from: usize, to: usize) {
        let address = NODES[to - 1].2;
        let (name, client) = self.pod(from).ask(&format!("{address}:8080")).unwrap();
        assert_eq!(name, format!("pod{to}"));
        assert_eq!(client.to_string(), NODES[from - 1].2, "its own address");
    }

    /// A body of 64 KB each way.
    fn exchange(&self, from: usize, to: usize) {
        const BODY: usize = 64 << 10;
        let address = format!("{}:9000", NODES[to - 1].2);
        let at = address.clone();
        let (ready, is_ready) = mpsc::channel();
        let listener = self.pod(to).run(move || TcpListener::bind(at).unwrap());
        let limit = Duration::from_secs(20);
        let server = thread::spawn(move || {
            ready.send(()).unwrap();
            let mut stream = listener.accept().unwrap().0;
            stream.set_read_timeout(Some(limit)).unwrap();
            let mut body = vec![0; BODY];
            stream.read_exact(&mut body).unwrap();
            stream.write_all(&body).unwrap();
        });
        is_ready.recv().unwrap();
        let got = self.pod(from).run(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(limit)).unwrap();
            stream.write_all(&vec![7; BODY]).unwrap();
            let mut body = Vec::new();
            stream.read_to_end(&mut body).map(|_| body)
        });
        assert_eq!(got.unwrap(), vec![7; BODY]);
        server.join().unwrap();
    }
}

#[test]
fn pods_reach_each_other_whatever_lies_between_their_nodes() {
    let net = Net::new([Mode::Auto; 3]);
    let near = net.hosts[0].space.ip("route show 10.244.2.0/24");
    assert!(near.contains("via 192.0.2.2 dev eth0"), "{near}");
    let far = net.hosts[0].space.ip("route show 10.244.3.0/24");
    assert!(far.contains("dev barge-vx"), "{far}");
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (3, 2)] {
        net.ask(from, to);
        net.exchange(from, to);
    }
    // The nodes themselves, and an agent that starts again while a connection is open.
    let mut connection = net.pod(1).connect("10.244.3.2:8080").unwrap();
    connection.line();
    net.hosts[0].space.ask("10.244.3.2:8080").unwrap();
    net.hosts.iter().for_each(Host::begin);
    assert!(connection.echoes());
    // Nobody takes what goes through for connections of their own.
    let tracked = "/proc/thread-self/net/nf_conntrack";
    for host in &net.hosts {
        let read = host.space.run(move || std::fs::read_to_string(tracked));
        let tracked = read.unwrap_or_default();
        assert!(!tracked.contains("dport=7102"), "{tracked}");
    }
}

#[test]
fn nodes_on_a_link_need_not_choose_the_same() {
    let net = Net::new([Mode::Direct, Mode::Vxlan, Mode::Auto]);
    // A node that takes no VXLAN is not reached by it.
    let refused = net.pod(2).run(|| {
        let to = "10.244.1.2:8080".parse().unwrap();
        TcpStream::connect_timeout(&to, Duration::from_millis(700))
    });
    assert!(refused.is_err());
    for (first, second) in [(Mode::Auto, Mode::Vxlan), (Mode::Vxlan, Mode::Auto)] {
        let net = Net::new([first, second, Mode::Auto]);
        net.ask(1, 2);
        net.ask(2, 1);
        net.exchange(1, 2);
    }
}

#[test]
fn packets_of_those_who_are_no_nodes_are_dropped() {
    let net = Net::new([Mode::Auto; 3]);
    let node = &net.hosts[0].space;
    let pod = net.pod(1);
    let heard = pod.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:9999").unwrap();
        let limit = Duration::from_millis(700);
        socket.set_read_timeout(Some(limit)).unwrap();
        socket
    });
    let is_heard = || heard.recv_from(&mut [0; 8]).is_ok();
    // What a stranger on the link sends to the VXLAN port, as if a pod of node 3 had sent it to the pod.
    let stranger = Space::new();
    net.router
        .plug("near", &stranger, "stranger", "192.0.2.66/24");
    let forge = |space: &Space, inner: &str| {
        let inner: Ipv4Addr = inner.parse().unwrap();
        let packet = forged(inner, "10.244.1.2".parse().unwrap());
        space.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(&packet, "192.0.2.1:7102").unwrap();
        });
    };
    forge(&stranger, "10.244.3.2");
    assert!(!is_heard(), "of a stranger");
    // A pod of another node has that node's address for the outside, and still no way in.
    forge(net.pod(2), "10.244.3.2");
    assert!(!is_heard(), "of a pod");
    // A node is trusted with the addresses of pods and nodes, but for this node's own.
    forge(&net.hosts[1].space, "203.0.113.5");
    assert!(!is_heard(), "of nobody");
    forge(&net.hosts[1].space, "10.244.1.9");
    assert!(!is_heard(), "of the node itself");
    forge(&net.hosts[1].space, "10.244.3.2");
    assert!(is_heard(), "of a pod of a node");
    // All hosts of a link get what is for none of their addresses.
    let to_all = |space: &Space, from: &str, to: &str| {
        let packet = forged([10, 244, 3, 2].into(), [10, 244, 1, 2].into());
        let (from, to) = (format!("{from}:0"), format!("{to}:7102"));
        space.run(move || {
            let socket = UdpSocket::bind(from).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.send_to(&packet, to).unwrap();
        });
    };
    let all = ["255.255.255.255", "224.0.0.1"];
    for to in all {
        to_all(&stranger, "192.0.2.66", to);
        assert!(!is_heard(), "of a stranger to {to}");
        to_all(pod, "10.244.1.2", to);
        assert!(!is_heard(), "of a pod to {to}");
        to_all(&net.hosts[1].space, "192.0.2.2", to);
        assert!(!is_heard(), "of a node to {to}");
    }
    // Another address of the node.
    node.ip("address add 192.0.2.11/32 dev lo");
    net.hosts[1].space.ip("route add 192.0.2.11 via 192.0.2.1");
    let packet = forged([10, 244, 3, 2].into(), [10, 244, 1, 2].into());
    let sent = packet.clone();
    net.hosts[1].space.run(move || {
        let socket = UdpSocket::bind("192.0.2.2:0").unwrap();
        socket.send_to(&sent, "192.0.2.11:7102").unwrap();
    });
    assert!(!is_heard(), "to another address");
    // A Service that leads to the node's port would give a pod its node's address.
    let second = &net.hosts[1].space;
    second.nft("add chain inet barge leads");
    second.nft("add rule inet barge leads meta l4proto udp dnat ip to 192.0.2.1:7102");
    second.nft("add element inet barge cluster_ports { 10.96.0.10 . udp . 53 : goto leads }");
    let by_service = || {
        let packet = packet.clone();
        net.pod(2).run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(&packet, "10.96.0.10:53").unwrap();
        });
    };
    by_service();
    assert!(!is_heard(), "by a Service");
    second.nft("flush chain inet barge forward");
    by_service();
    assert!(is_heard(), "the rule was what kept the Service's out");
    node.nft("flush chain inet barge vxlan");
    forge(&stranger, "10.244.3.2");
    assert!(is_heard(), "the rule was what kept it out");
    for to in all {
        to_all(&stranger, "192.0.2.66", to);
        assert!(is_heard(), "the rule was what kept it out: {to}");
    }
}

/// What a VXLAN interface would send: a UDP packet from one pod to port 9999 of another, for node 1.
fn forged(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0];
    packet.extend(plan::VNI.to_be_bytes()[1..].iter().chain(&[0]));
    packet.extend(plan::mac("10.244.1.0".parse().unwrap()));
    packet.extend(plan::mac("10.244.3.0".parse().unwrap()));
    packet.extend([8, 0]);
    let mut header = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    let sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(header);
    packet.extend([0x27, 0x0f, 0x27, 0x0f, 0, 9, 0, 0, b'!']);
    packet
}
