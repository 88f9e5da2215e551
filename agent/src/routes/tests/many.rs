//! A cluster of 5,000 nodes.

use super::*;

const NODES: u32 = 5_000;

fn address(number: u32) -> String {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(203, 0, 0, 0)) + number).to_string()
}

fn range(number: u32) -> String {
    let first = u32::from(Ipv4Addr::new(10, 128, 0, 0)) + (number << 8);
    format!("{}/24", Ipv4Addr::from(first))
}

#[test]
fn a_change_of_one_node_costs_one_node() {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    space.ip("route add default via 192.0.2.254");
    let all: Vec<_> = (1..=NODES).map(|it| (range(it), address(it))).collect();
    let peers: Vec<_> = all
        .iter()
        .map(|(to, at)| (to.as_str(), at.as_str()))
        .collect();
    let whole = assigned("10.244.1.0/24", &peers);
    let less = assigned("10.244.1.0/24", &peers[1..]);
    let auto = setting(Mode::Auto, "192.0.2.1");
    let (first, again, change) = space.run(move || {
        let mut wires = Wires::new(auto);
        let mut time = |desired: &Desired, looks| {
            let begin = Moment::now();
            assert_eq!(wires.bring(desired, looks), Outcome::default());
            begin.elapsed()
        };
        let times = (time(&whole, true), time(&whole, true), time(&less, false));
        time(&whole, false);
        times
    });
    println!("all {first:?}, a look {again:?}, one {change:?}");
    let count = |text: String| text.lines().count();
    assert_eq!(count(space.ip("route show dev barge-vx")), NODES as usize);
    assert_eq!(
        count(space.ip("neigh show dev barge-vx nud permanent")),
        NODES as usize
    );
    assert_eq!(
        count(space.sh("bridge", "fdb show dev barge-vx")),
        NODES as usize
    );
    assert!(
        change < again && again < first,
        "{change:?} {again:?} {first:?}"
    );
}
