use super::*;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  hostNetwork: false
  hostIPC: true
  shareProcessNamespace: true
  setHostnameAsFQDN: true
  securityContext:
    sysctls:
    - {name: net.ipv4.tcp_syncookies, value: '0'}
  containers:
  - name: web
    image: nginx:1
    ports:
    - {containerPort: 80, hostPort: 8080}
    - {containerPort: 53, hostPort: 5353, hostIP: 192.0.2.1, protocol: UDP}
";

#[test]
fn host_namespaces_and_ports_have_rules() {
    let ports = "spec.containers[0].ports";
    let of_network = "spec.securityContext.sysctls[0].name: \"net.ipv4.tcp_syncookies\" would be changed for the whole node, because of hostNetwork";
    let cases = [
        ("hostIPC: true", "hostPID: true", "spec.shareProcessNamespace: true contradicts hostPID".to_owned()),
        ("hostNetwork: false", "hostNetwork: true", of_network.to_owned()),
        ("hostNetwork: false", "hostNetwork: true", format!("{ports}[0].hostPort: 8080 must be containerPort, 80, because of hostNetwork")),
        (
            "net.ipv4.tcp_syncookies",
            "kernel.shm_rmid_forced",
            "spec.securityContext.sysctls[0].name: \"kernel.shm_rmid_forced\" would be changed for the whole node, because of hostIPC".to_owned(),
        ),
        ("hostPort: 8080", "hostPort: 65536", format!("{ports}[0].hostPort: 65536 must be")),
        ("hostPort: 8080", "hostIP: 192.0.2.1", format!("{ports}[0].hostIP: \"192.0.2.1\" says nothing without hostPort")),
        ("192.0.2.1", "'fd00::1'", format!("{ports}[1].hostIP: \"fd00::1\" must be an IPv4 address")),
        (
            "hostPort: 8080}",
            "hostPort: 5353, hostIP: 192.0.2.1, protocol: UDP}",
            format!("{ports}[1].hostPort: 5353 is the host port of another port, too"),
        ),
    ];
    for (from, to, told) in &cases {
        let said = after(POD, from, to);
        assert!(
            said.iter().any(|it| it.starts_with(told)),
            "{told}: {said:?}"
        );
    }
    assert_eq!(after(POD, "web", "web"), Vec::<String>::new());
}
