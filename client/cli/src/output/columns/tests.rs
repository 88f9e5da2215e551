use std::collections::BTreeMap;

use super::*;
use crate::output::{Columns, Table, table};
use barge_client::v1::*;

const NOW: i64 = 1_000_000;

fn meta(name: &str, seconds_ago: i64) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        name: name.into(),
        namespace: "default".into(),
        creation_timestamp: Some(Time {
            seconds: NOW - seconds_ago,
            nanos: 0,
        }),
        ..ObjectMeta::default()
    })
}

fn print(mut table: Table) -> String {
    let mut out = Vec::new();
    table.print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn shown(object: impl Into<Object>, columns: Columns) -> String {
    let object = object.into();
    print(table(object.kind(), &[object], &columns, NOW).unwrap())
}

const USUAL: Columns = Columns {
    wide: false,
    namespace: false,
    kind: false,
    labels: Vec::new(),
    all_labels: false,
    custom: None,
};
const WIDE: Columns = Columns {
    wide: true,
    namespace: false,
    kind: false,
    labels: Vec::new(),
    all_labels: false,
    custom: None,
};

#[test]
fn deployments() {
    let deployment = Deployment {
        metadata: meta("nginx-deployment", 75),
        spec: Some(DeploymentSpec {
            replicas: Some(3),
            selector: Some(LabelSelector {
                match_labels: BTreeMap::from([("app".into(), "nginx".into())]),
                ..LabelSelector::default()
            }),
            template: Some(PodTemplateSpec {
                spec: Some(PodSpec {
                    containers: vec![Container {
                        name: "nginx".into(),
                        image: "nginx:latest".into(),
                        ..Container::default()
                    }],
                    ..PodSpec::default()
                }),
                ..PodTemplateSpec::default()
            }),
            ..DeploymentSpec::default()
        }),
        status: Some(DeploymentStatus {
            ready_replicas: 2,
            updated_replicas: 3,
            available_replicas: 2,
            ..DeploymentStatus::default()
        }),
        ..Deployment::default()
    };
    assert_eq!(
        shown(deployment.clone(), USUAL),
        "\
NAME               READY   UP-TO-DATE   AVAILABLE   AGE
nginx-deployment   2/3     3            2           75s
"
    );
    let all = Columns {
        namespace: true,
        kind: true,
        ..WIDE
    };
    assert_eq!(
        shown(deployment, all),
        "\
NAMESPACE   NAME                               READY   UP-TO-DATE   AVAILABLE   AGE   CONTAINERS   IMAGES         SELECTOR
default     deployment.apps/nginx-deployment   2/3     3            2           75s   nginx        nginx:latest   app=nginx
"
    );
}

#[test]
fn pods() {
    let pod = Pod {
        metadata: meta("web-1", 4000),
        spec: Some(PodSpec {
            containers: vec![Container::default(), Container::default()],
            node_name: "node-1".into(),
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: "Running".into(),
            pod_ip: "10.244.1.5".into(),
            container_statuses: vec![ContainerStatus {
                ready: true,
                restart_count: 2,
                last_state: Some(ContainerState {
                    terminated: Some(ContainerStateTerminated {
                        finished_at: Some(Time {
                            seconds: NOW - 300,
                            nanos: 0,
                        }),
                        ..ContainerStateTerminated::default()
                    }),
                    ..ContainerState::default()
                }),
                ..ContainerStatus::default()
            }],
            ..PodStatus::default()
        }),
        ..Pod::default()
    };
    assert_eq!(
        shown(pod, WIDE),
        "\
NAME    READY   STATUS    RESTARTS     AGE   IP           NODE
web-1   1/2     Running   2 (5m ago)   66m   10.244.1.5   node-1
"
    );
    assert_eq!(
        shown(
            Pod {
                metadata: meta("new", 0),
                ..Pod::default()
            },
            WIDE
        ),
        "\
NAME   READY   STATUS    RESTARTS   AGE   IP       NODE
new    0/0     Pending   0          0s    <none>   <none>
"
    );
}

#[test]
fn services() {
    let mut service = Service {
        metadata: meta("nginx-service", 10),
        spec: Some(ServiceSpec {
            r#type: "LoadBalancer".into(),
            cluster_ip: "10.96.0.10".into(),
            ports: vec![ServicePort {
                port: 80,
                node_port: 30080,
                protocol: "TCP".into(),
                ..ServicePort::default()
            }],
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    assert_eq!(
        shown(service.clone(), USUAL),
        "\
NAME            TYPE           CLUSTER-IP   EXTERNAL-IP   PORT(S)        AGE
nginx-service   LoadBalancer   10.96.0.10   <pending>     80:30080/TCP   10s
"
    );
    service.status = Some(ServiceStatus {
        load_balancer: Some(LoadBalancerStatus {
            ingress: vec![LoadBalancerIngress {
                ip: "10.213.0.11".into(),
            }],
        }),
    });
    assert!(shown(service, USUAL).contains("10.213.0.11"));
}

#[test]
fn nodes() {
    let node = Node {
        metadata: meta("node-1", 200_000),
        spec: Some(NodeSpec {
            unschedulable: true,
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            conditions: vec![Condition {
                r#type: "Ready".into(),
                status: "True".into(),
                ..Condition::default()
            }],
            node_info: Some(NodeSystemInfo {
                kubelet_version: "0.1.0".into(),
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        }),
        ..Node::default()
    };
    assert_eq!(
        shown(node.clone(), USUAL),
        "\
NAME     STATUS                     AGE    VERSION
node-1   Ready,SchedulingDisabled   2d7h   0.1.0
"
    );
    let mut lost = node;
    lost.status = None;
    lost.spec = Some(NodeSpec {
        taints: vec![Taint {
            key: "node.barge.dev/unreachable".into(),
            effect: "NoExecute".into(),
            ..Taint::default()
        }],
        ..NodeSpec::default()
    });
    assert!(shown(lost, USUAL).contains("NotReady,Lost "));
}

#[test]
fn endpoints_count_what_does_not_fit() {
    let address = |ip: &str| EndpointAddress {
        ip: ip.into(),
        ..EndpointAddress::default()
    };
    let endpoints = Endpoints {
        metadata: meta("web", 5),
        subsets: vec![EndpointSubset {
            addresses: ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
                .map(address)
                .to_vec(),
            ports: vec![EndpointPort {
                port: 80,
                ..EndpointPort::default()
            }],
            ..EndpointSubset::default()
        }],
        ..Endpoints::default()
    };
    assert_eq!(
        shown(endpoints, USUAL),
        "\
NAME   ENDPOINTS                                         AGE
web    10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more...   5s
"
    );
}

#[test]
fn events() {
    let event = Event {
        metadata: meta("e", 5),
        r#type: "Warning".into(),
        reason: "FailedScheduling".into(),
        message: "0/1 nodes are available\n".into(),
        last_timestamp: Some(Time {
            seconds: NOW - 7,
            nanos: 0,
        }),
        involved_object: Some(ObjectReference {
            kind: "Pod".into(),
            name: "web-1".into(),
            ..ObjectReference::default()
        }),
        ..Event::default()
    };
    assert_eq!(
        shown(event, USUAL),
        "\
LAST SEEN   TYPE      REASON             OBJECT      MESSAGE
7s          Warning   FailedScheduling   pod/web-1   0/1 nodes are available
"
    );
}

#[test]
fn bindings() {
    let subject = |kind: &str, name: &str, namespace: &str| Subject {
        kind: kind.into(),
        name: name.into(),
        namespace: namespace.into(),
        ..Subject::default()
    };
    let binding = RoleBinding {
        metadata: meta("team", 75),
        subjects: vec![
            subject("User", "alice", ""),
            subject("User", "bob", ""),
            subject("ServiceAccount", "ci", "shop"),
        ],
        role_ref: Some(RoleRef {
            kind: "ClusterRole".into(),
            name: "edit".into(),
            ..RoleRef::default()
        }),
        ..RoleBinding::default()
    };
    let text = shown(binding, WIDE);
    for cell in [
        "ROLE",
        "ClusterRole/edit",
        "alice, bob",
        "<none>",
        "shop/ci",
    ] {
        assert!(text.contains(cell), "no {cell} in: {text}");
    }
}
