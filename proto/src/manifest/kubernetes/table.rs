//! The table of Kubernetes' fields that Barge does not implement (from the API reference of 1.34).

/// What a field may hold.
pub(super) enum Accepted {
    /// Empty, false or 0: Kubernetes' zero value.
    Nothing,
    /// Empty, or one of these (in JSON): Kubernetes' default, or what Barge does anyway.
    Only(&'static [&'static str]),
    /// Whatever it is: a report, not a wish (status).
    Anything,
    /// What this field, which Barge has, may hold: another name for it.
    OtherName(&'static str),
}

use Accepted::{Anything, Nothing, Only, OtherName};

type Fields = &'static [(&'static str, Accepted)];

/// By message and field; messages have their Rust names.
pub(super) const FIELDS: &[(&str, Fields)] = &[
    ("ObjectMeta", OBJECT_META),
    ("ManagedFieldsEntry", &[("subresource", Anything)]),
    ("Condition", &[("lastProbeTime", Anything)]),
    (
        "NamespaceSpec",
        &[("finalizers", Only(&[r#"["kubernetes"]"#]))],
    ),
    ("NamespaceStatus", &[("conditions", Anything)]),
    ("NodeSpec", NODE_SPEC),
    ("NodeStatus", NODE_STATUS),
    ("NodeSystemInfo", NODE_SYSTEM_INFO),
    ("PodSpec", POD_SPEC),
    ("Container", CONTAINER),
    ("LifecycleHandler", &[("tcpSocket", Nothing)]),
    ("PodSecurityContext", POD_SECURITY_CONTEXT),
    ("SecurityContext", SECURITY_CONTEXT),
    ("EnvVarSource", &[("fileKeyRef", Nothing)]),
    ("ResourceRequirements", &[("claims", Nothing)]),
    ("Volume", VOLUME),
    (
        "VolumeProjection",
        &[("clusterTrustBundle", Nothing), ("podCertificate", Nothing)],
    ),
    (
        "VolumeMount",
        &[("recursiveReadOnly", Only(&[r#""Disabled""#]))],
    ),
    ("PodStatus", POD_STATUS),
    ("ContainerStatus", CONTAINER_STATUS),
    ("DeploymentStatus", DEPLOYMENT_STATUS),
    ("ReplicaSetStatus", &[("terminatingReplicas", Anything)]),
    ("ServiceSpec", SERVICE_SPEC),
    ("ServicePort", &[("appProtocol", Nothing)]),
    ("ServiceStatus", &[("conditions", Anything)]),
    ("LoadBalancerIngress", LOAD_BALANCER_INGRESS),
    ("EndpointAddress", &[("hostname", Nothing)]),
    ("EndpointPort", &[("appProtocol", Nothing)]),
    ("Event", EVENT),
    // There are no URLs beside the API.
    ("PolicyRule", &[("nonResourceURLs", Nothing)]),
    ("ClusterRole", &[("aggregationRule", Nothing)]),
];

const OBJECT_META: Fields = &[("generateName", Nothing), ("selfLink", Anything)];

const NODE_SPEC: Fields = &[
    ("configSource", Nothing),
    ("externalID", Nothing),
    ("providerID", Nothing),
];

const NODE_STATUS: Fields = &[
    ("config", Anything),
    ("daemonEndpoints", Anything),
    ("declaredFeatures", Anything),
    ("features", Anything),
    ("images", Anything),
    ("phase", Anything),
    ("runtimeHandlers", Anything),
    ("volumesAttached", Anything),
    ("volumesInUse", Anything),
];

const NODE_SYSTEM_INFO: Fields = &[
    ("kubeProxyVersion", Anything),
    ("swap", Anything),
    ("systemUUID", Anything),
];

const POD_SPEC: Fields = &[
    ("affinity", Nothing),
    ("ephemeralContainers", Nothing),
    ("hostUsers", Only(&["true"])),
    ("hostnameOverride", Nothing),
    ("os", Only(&[r#"{"name":"linux"}"#])),
    ("overhead", Nothing),
    ("preemptionPolicy", Only(&[r#""PreemptLowerPriority""#])),
    ("priority", Nothing),
    ("priorityClassName", Nothing),
    ("readinessGates", Nothing),
    ("resourceClaims", Nothing),
    ("resources", Nothing),
    ("runtimeClassName", Nothing),
    ("schedulerName", Only(&[r#""default-scheduler""#])),
    ("schedulingGates", Nothing),
    // What it was called before.
    ("serviceAccount", OtherName("serviceAccountName")),
    ("topologySpreadConstraints", Nothing),
    ("workloadRef", Nothing),
];

const CONTAINER: Fields = &[
    ("resizePolicy", Nothing),
    ("restartPolicyRules", Nothing),
    ("stdin", Nothing),
    ("stdinOnce", Nothing),
    ("tty", Nothing),
    ("volumeDevices", Nothing),
];

const VOLUME: Fields = &[
    ("awsElasticBlockStore", Nothing),
    ("azureDisk", Nothing),
    ("azureFile", Nothing),
    ("cephfs", Nothing),
    ("cinder", Nothing),
    ("csi", Nothing),
    ("ephemeral", Nothing),
    ("fc", Nothing),
    ("flexVolume", Nothing),
    ("flocker", Nothing),
    ("gcePersistentDisk", Nothing),
    ("gitRepo", Nothing),
    ("glusterfs", Nothing),
    ("image", Nothing),
    ("iscsi", Nothing),
    ("nfs", Nothing),
    ("persistentVolumeClaim", Nothing),
    ("photonPersistentDisk", Nothing),
    ("portworxVolume", Nothing),
    ("quobyte", Nothing),
    ("rbd", Nothing),
    ("scaleIO", Nothing),
    ("storageos", Nothing),
    ("vsphereVolume", Nothing),
];

const POD_SECURITY_CONTEXT: Fields = &[
    ("appArmorProfile", Nothing),
    ("seLinuxChangePolicy", Nothing),
    ("seLinuxOptions", Nothing),
    ("windowsOptions", Nothing),
];

const SECURITY_CONTEXT: Fields = &[
    ("appArmorProfile", Nothing),
    ("procMount", Only(&[r#""Default""#])),
    ("seLinuxOptions", Nothing),
    ("windowsOptions", Nothing),
];

const POD_STATUS: Fields = &[
    ("allocatedResources", Anything),
    ("ephemeralContainerStatuses", Anything),
    ("extendedResourceClaimStatus", Anything),
    ("hostIPs", Anything),
    ("nominatedNodeName", Anything),
    ("observedGeneration", Anything),
    ("qosClass", Anything),
    ("resize", Anything),
    ("resourceClaimStatuses", Anything),
    ("resources", Anything),
];

const CONTAINER_STATUS: Fields = &[
    ("allocatedResources", Anything),
    ("allocatedResourcesStatus", Anything),
    ("resources", Anything),
    ("stopSignal", Anything),
    ("user", Anything),
    ("volumeMounts", Anything),
];

const DEPLOYMENT_STATUS: Fields = &[
    ("collisionCount", Anything),
    ("terminatingReplicas", Anything),
];

const SERVICE_SPEC: Fields = &[
    ("allocateLoadBalancerNodePorts", Only(&["true"])),
    ("externalIPs", Nothing),
    ("externalName", Nothing),
    ("healthCheckNodePort", Nothing),
    ("ipFamilies", Only(&[r#"["IPv4"]"#])),
    ("ipFamilyPolicy", Only(&[r#""SingleStack""#])),
    ("loadBalancerClass", Nothing),
    ("loadBalancerIP", Nothing),
    ("trafficDistribution", Nothing),
];

const LOAD_BALANCER_INGRESS: Fields = &[
    ("hostname", Anything),
    ("ipMode", Anything),
    ("ports", Anything),
];

const EVENT: Fields = &[
    ("action", Nothing),
    ("eventTime", Nothing),
    ("related", Nothing),
    ("reportingComponent", Nothing),
    ("reportingInstance", Nothing),
    ("series", Nothing),
];
