use super::*;

const SECURED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext:
        runAsUser: 1001
        runAsNonRoot: true
        fsGroup: 1001
        fsGroupChangePolicy: OnRootMismatch
        supplementalGroups: [7]
        seccompProfile: {type: Localhost, localhostProfile: web.json}
        sysctls:
        - {name: net.ipv4.tcp_syncookies, value: '0'}
      containers:
      - name: web
        image: nginx:1
        securityContext:
          allowPrivilegeEscalation: false
          privileged: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
";

#[test]
fn security_contexts_have_rules() {
    let at = "spec.template.spec";
    let of_pod = format!("{at}.securityContext");
    let of_container = format!("{at}.containers[0].securityContext");
    let cases = [
        (
            "runAsUser: 1001",
            "runAsUser: -1",
            format!("{of_pod}.runAsUser: -1 must be between 0 and 2147483647"),
        ),
        (
            "runAsUser: 1001",
            "runAsUser: 0",
            format!("{of_pod}.runAsUser: 0 is root, and runAsNonRoot"),
        ),
        (
            "fsGroup: 1001",
            "fsGroup: 4294967296",
            format!("{of_pod}.fsGroup: 4294967296 must be"),
        ),
        (
            "[7]",
            "[7, -7]",
            format!("{of_pod}.supplementalGroups[1]: -7 must be"),
        ),
        (
            "OnRootMismatch",
            "Sometimes",
            format!("{of_pod}.fsGroupChangePolicy: \"Sometimes\" must be"),
        ),
        (
            "{type: Localhost, localhostProfile: web.json}",
            "{type: Localhost}",
            format!("{of_pod}.seccompProfile.localhostProfile: is required"),
        ),
        (
            "web.json",
            "../web.json",
            format!("{of_pod}.seccompProfile.localhostProfile: \"../web.json\" must be a path"),
        ),
        (
            "type: Localhost",
            "type: RuntimeDefault",
            format!("{of_pod}.seccompProfile.localhostProfile: \"web.json\" is for"),
        ),
        (
            "net.ipv4.tcp_syncookies",
            "kernel.shmmax",
            format!("{of_pod}.sysctls[0].name: \"kernel.shmmax\" is not a setting"),
        ),
        (
            "drop: [ALL]",
            "drop: [EVERYTHING]",
            format!("{of_container}.capabilities.drop[0]: \"EVERYTHING\" is no capability"),
        ),
        (
            "privileged: false",
            "privileged: true",
            format!("{of_container}.allowPrivilegeEscalation: false contradicts privileged"),
        ),
        (
            "NET_BIND_SERVICE",
            "SYS_ADMIN",
            format!("{of_container}.allowPrivilegeEscalation: false contradicts capabilities.add"),
        ),
    ];
    let cases: Vec<_> = cases
        .iter()
        .map(|(from, to, said)| (*from, *to, said.as_str()))
        .collect();
    check(SECURED, &cases);
}

#[test]
fn what_a_machine_would_have_to_have_is_refused_by_name() {
    for field in [
        "seLinuxOptions: {level: s0}",
        "appArmorProfile: {type: RuntimeDefault}",
        "procMount: Unmasked",
    ] {
        let text = SECURED.replace("privileged: false", field);
        let error = manifest::parse([Source::new("test", text.as_str())]).unwrap_err();
        let name = field.split(':').next().unwrap();
        assert!(error.to_string().contains(name), "{error}");
    }
    // As charts render what they do not set.
    let text = SECURED.replace("privileged: false", "seLinuxOptions: {}");
    assert_eq!(validate(&read(&text)), Ok(()));
}
