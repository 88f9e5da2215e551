//! Defaults, and fields that an update must not change.

use super::*;

#[test]
fn defaults_are_kubernetes() {
    let resources =
        "resources: {limits: {cpu: 0.5, memory: 64Mi}, requests: {memory: 32Mi}}\n        ports: [";
    let object = read(
        &DEPLOYMENT
            .replace("ports: [", resources)
            .replace("  replicas: 3\n", ""),
    );
    let mut again = object.clone();
    default(&mut again);
    assert_eq!(again, object);
    let expected = r#"spec:
  progressDeadlineSeconds: 600
  revisionHistoryLimit: 10
  selector:
    matchLabels:
      app: web
  strategy:
    rollingUpdate:
      maxSurge: 25%
      maxUnavailable: 25%
    type: RollingUpdate
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
      - image: nginx:latest
        imagePullPolicy: Always
        name: web
        ports:
        - containerPort: 80
          protocol: TCP
        resources:
          limits:
            cpu: 500m
            memory: 64Mi
          requests:
            cpu: 500m
            memory: 32Mi
      restartPolicy: Always
      terminationGracePeriodSeconds: 30
"#;
    let text = manifest::to_yaml(&object).unwrap();
    assert_eq!(
        text.split_once("\nspec:")
            .map(|(_, spec)| format!("spec:{spec}"))
            .unwrap(),
        expected
    );
    default_on_create(&mut again);
    assert!(
        manifest::to_yaml(&again)
            .unwrap()
            .contains("\n  replicas: 1\n")
    );

    let service = manifest::to_yaml(&read(SERVICE)).unwrap();
    assert!(
        service.contains("protocol: TCP\n    targetPort: 443\n"),
        "{service}"
    );
    assert!(service.contains("namespace: default\n"), "{service}");
}

#[test]
fn some_fields_cannot_change() {
    let changed = |text: &str, from: &str, to: &str| {
        let (old, new) = (read(text), read(&text.replace(from, to)));
        let violations = validate_update(&old, &new).err().unwrap_or_default();
        violations.into_iter().map(|v| v.field).collect::<Vec<_>>()
    };
    assert!(changed(DEPLOYMENT, "nginx:latest", "nginx:1").is_empty());
    assert_eq!(
        changed(DEPLOYMENT, "app: web", "app: shop"),
        ["spec.selector"]
    );
    let service = SERVICE.replace("type: LoadBalancer", "clusterIP: 10.96.0.7");
    assert!(changed(&service, "clusterIP: 10.96.0.7", "type: NodePort").is_empty());
    assert_eq!(
        changed(&service, "10.96.0.7", "10.96.0.8"),
        ["spec.clusterIP"]
    );
    assert_eq!(
        changed(SERVICE, "{name: web}", "{name: web, uid: other}"),
        ["metadata.uid"]
    );
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {a: b}}\n\
               spec: {nodeName: m, containers: [{name: a, image: b}]}\n";
    assert!(changed(pod, "nodeName: m, ", "").is_empty());
    assert_eq!(changed(pod, "image: b", "image: c"), ["spec"]);
    assert!(changed(pod, "a: b", "a: c").is_empty());
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDR: 10.244.1.0/24}\n";
    assert_eq!(changed(node, "10.244.1", "10.244.2"), ["spec.podCIDR"]);
    assert!(changed(node, "podCIDR: 10.244.1.0/24", "unschedulable: true").is_empty());
}
