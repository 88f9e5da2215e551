//! A Deployment of two replicas that rolls while clients visit it through every node.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    Cluster,
    visitor::{Failure, Visitor, Way},
};

/// Visitors of each way.
const VISITORS: usize = 3;
/// On the nodes' addresses.
const PORT: u16 = 8088;

const SITE: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: site}
spec:
  replicas: 2
  selector: {matchLabels: {app: site}}
  template:
    metadata: {labels: {app: site}}
    spec:
      containers:
      - name: nginx
        image: nginx:latest
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: site}
spec:
  type: LoadBalancer
  selector: {app: site}
  ports: [{port: 8088, targetPort: 80}]
";

/// What the visitors of one way saw.
#[derive(Debug, Default)]
pub struct Visits {
    /// Those that went well.
    pub pages: u64,
    /// Those that did not.
    pub failures: Vec<Failure>,
}

/// A site of two replicas on the cluster's nodes.
pub struct Site<'a> {
    cluster: &'a Cluster,
    addresses: Vec<SocketAddr>,
}

impl<'a> Site<'a> {
    /// Makes it, and returns when it answers at every node.
    #[must_use]
    pub fn on(cluster: &'a Cluster) -> Self {
        cluster.apply(SITE);
        cluster.ready_pods("app=site", 2);
        let agents = cluster.layout().agents;
        let addresses = agents.iter().map(|agent| {
            crate::eventually(&format!("the site answers at {}", agent.name), || {
                cluster.fetch(&format!("http://{}:{PORT}/", agent.address))
            });
            let ip: IpAddr = agent.address.parse().expect("an address");
            SocketAddr::new(ip, PORT)
        });
        Self {
            cluster,
            addresses: addresses.collect(),
        }
    }

    /// Replaces both pods, this many times, while visitors come by both ways; answers what those saw who connect for each visit, those who keep connections, and how
    /// long one replacement took.
    #[must_use]
    pub fn roll(&self, times: usize) -> (Visits, Visits, Duration) {
        let visitors = |way| {
            let all = (0..VISITORS).map(|number| {
                let mut addresses = self.addresses.clone();
                addresses.rotate_left(number % self.addresses.len());
                Visitor::steady(addresses, way, |page| {
                    page.starts_with("HTTP/1.1 200") && page.contains("nginx")
                })
            });
            all.collect::<Vec<_>>()
        };
        let (fresh, kept) = (visitors(Way::Fresh), visitors(Way::Kept));
        let begun = Instant::now();
        for _ in 0..times {
            let before = self.pods();
            self.cluster
                .barge(&["rollout", "restart", "deployment/site"]);
            crate::eventually("two other pods, and no more", || {
                let now = self.pods();
                match now.len() == 2 && now.iter().all(|uid| !before.contains(uid)) {
                    true => Ok(()),
                    false => Err(self.cluster.barge(&["get", "pods"])),
                }
            });
            self.cluster.ready_pods("app=site", 2);
        }
        let took = begun.elapsed() / u32::try_from(times).unwrap_or(u32::MAX).max(1);
        (seen(&fresh), seen(&kept), took)
    }

    fn pods(&self) -> Vec<String> {
        let pods = self.cluster.list("pods", "app=site");
        let uid = |pod: &serde_json::Value| pod["metadata"]["uid"].as_str().map(str::to_owned);
        pods.iter().filter_map(uid).collect()
    }
}

fn seen(visitors: &[Visitor]) -> Visits {
    let mut visits = Visits::default();
    for visitor in visitors {
        let seen = visitor.seen();
        visits.pages += seen.pages;
        visits.failures.extend(seen.failures);
    }
    visits
}
