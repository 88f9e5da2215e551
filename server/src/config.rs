//! The settings of a manager: flags override a TOML file, which overrides defaults.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use barge_client::duration::Span;
use barge_proto::quantity::Amount;
use clap::Args;
use ipnet::IpNet;
use serde::Deserialize;

use crate::{
    controllers::{NODE_GRACE, NODE_LOSS_INTERVAL},
    net::{reserved::ReservedPorts, split_address},
    observe::{logging::LogFormat, spans::Otlp},
    pki::authority::{LEAF_LIFE, ROOT_LIFE},
};

/// A shorter life leaves no time to renew in.
const SHORTEST_LIFE: Duration = Duration::from_secs(10);

/// The flags of `run`, and the keys of its configuration file (with underscores).
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flags {
    /// Where this manager keeps everything; one process at a time
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The address by which managers, agents and clients reach this manager
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Where to listen [default: the advertised port, on all addresses]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Start a new cluster; ignored once the data folder has one
    #[arg(long, conflicts_with_all = ["join", "token_file"])]
    pub bootstrap: bool,
    /// Managers of the cluster to join; ignored once the data folder has a cluster
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        requires = "token_file"
    )]
    pub join: Vec<String>,
    /// The file that holds the join token
    #[arg(long, value_name = "FILE", requires = "join")]
    pub token_file: Option<PathBuf>,
    /// With --bootstrap: the range that pods get addresses from [default: 10.244.0.0/16]
    #[arg(long, value_name = "RANGE")]
    pub pod_cidr: Option<IpNet>,
    /// With --bootstrap: the range that Services get addresses from [default: 10.96.0.0/16]
    #[arg(long, value_name = "RANGE")]
    pub service_cidr: Option<IpNet>,
    /// Hand leadership over, or refuse writes, while less than this is free on the disk of the data folder
    /// [default: 5 % of the disk, at least 128Mi and at most 4Gi]
    #[arg(long, value_name = "SIZE")]
    pub min_disk_free: Option<String>,
    /// How long the certificates live that this manager signs; they are renewed in the second half of it, by themselves
    /// [default: 365d]
    #[arg(long, value_name = "DURATION")]
    pub certificate_lifetime: Option<Span>,
    /// Do not write who changed what to audit.log in the data folder
    #[arg(long)]
    pub no_audit_log: bool,
    /// Where to answer GET /metrics, plain HTTP for anybody: loopback, or a network of its own [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Where to send a span of every call by OTLP (gRPC), such as http://collector:4317 [default: nowhere]
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// With --otlp-endpoint: which part of the traces that begin here to keep, from 0 to 1 [default: 1]
    #[arg(long, value_name = "RATIO")]
    pub otlp_sample: Option<f64>,
    /// How log lines look [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Compact the log whenever it has grown by this much, at least 1Mi [default: 64Mi]
    #[arg(long, value_name = "SIZE")]
    pub snapshot_after: Option<String>,
    /// Send a manager that was away for long the state with at most this much a second, at least 1Mi [default: 64Mi]
    #[arg(long, value_name = "SIZE")]
    pub snapshot_rate: Option<String>,
    /// While this manager leads: how long an agent may be silent before its node is not ready; the leader may then declare it
    /// lost and have its pods made anew elsewhere; the same for all managers [default: 4s]
    #[arg(long, value_name = "DURATION")]
    pub node_grace: Option<Span>,
    /// While this manager leads: the shortest time between two nodes that are declared lost and have their pods made anew elsewhere; the
    /// same for all managers [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub node_loss_interval: Option<Span>,
    /// While this manager leads: ports of the nodes that no Service may take, beside the managers' own; the same for all
    /// managers [default: 22,68,546,7100]
    #[arg(long, value_name = "PORTS")]
    pub reserved_ports: Option<ReservedPorts>,
    /// A TOML file with the same settings
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// What a manager is told, complete and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// `host:port`
    pub advertise: String,
    /// Where to listen.
    pub listen: SocketAddr,
    /// What to do with a data folder that has no cluster.
    pub origin: Origin,
    /// The range of the pods, used at bootstrap.
    pub pod_cidr: IpNet,
    /// The range of the Services, used at bootstrap.
    pub service_cidr: IpNet,
    /// What should stay free on the data folder's disk, in bytes; absent for the default.
    pub min_disk_free: Option<u64>,
    /// The life of the certificates that are signed here. Default 365 days.
    pub certificate_lifetime: Duration,
    /// Whether the audit log is written. Default true.
    pub audit: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where to answer GET /metrics.
    pub metrics: Option<SocketAddr>,
    /// Where spans go; absent when none are made.
    pub otlp: Option<Otlp>,
    /// By how much the log grows before it is compacted, in bytes; absent for the default.
    pub snapshot_after: Option<u64>,
    /// How fast a snapshot is sent, in bytes per second; absent for the default.
    pub snapshot_rate: Option<u64>,
    /// How long an agent may be silent before its node is not ready, and may be lost.
    pub node_grace: Duration,
    /// The shortest time between two nodes that are lost.
    pub node_loss_interval: Duration,
    /// Ports of the nodes that no Service may take: those given or the default, and where this manager listens.
    pub reserved_ports: ReservedPorts,
}

/// Where the cluster of a fresh data folder comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It has to be there already.
    Existing,
    /// It begins here.
    Bootstrap,
    /// It is joined.
    Join {
        /// Managers, `host:port`.
        managers: Vec<String>,
        /// The file with the token.
        token_file: PathBuf,
    },
}

/// A setting that does not work; exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// The configuration file.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A setting that is missing or malformed.
    #[error("{0}")]
    Setting(String),
}

impl Flags {
    /// Reads the configuration file if there is one, lets flags win, and checks the result.
    ///
    /// # Errors
    /// One sentence on the first setting that does not work.
    pub fn resolve(self) -> Result<Config, UsageError> {
        let file = match &self.config {
            None => Self::default(),
            Some(path) => {
                let wrong = |what: String| UsageError::File {
                    path: path.clone(),
                    what,
                };
                let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
                toml::from_str(&text).map_err(|e| wrong(e.to_string()))?
            }
        };
        self.over(file).complete()
    }

    fn over(self, file: Self) -> Self {
        // One way in replaces the other: a file that says `bootstrap` does not conflict with `--join`.
        let origin_given = self.bootstrap || !self.join.is_empty();
        let origin = if origin_given { &self } else { &file };
        Self {
            bootstrap: origin.bootstrap,
            join: origin.join.clone(),
            token_file: origin.token_file.clone(),
            data_dir: self.data_dir.or(file.data_dir),
            advertise: self.advertise.or(file.advertise),
            listen: self.listen.or(file.listen),
            pod_cidr: self.pod_cidr.or(file.pod_cidr),
            service_cidr: self.service_cidr.or(file.service_cidr),
            min_disk_free: self.min_disk_free.or(file.min_disk_free),
            certificate_lifetime: self.certificate_lifetime.or(file.certificate_lifetime),
            no_audit_log: self.no_audit_log || file.no_audit_log,
            log_format: self.log_format.or(file.log_format),
            metrics: self.metrics.or(file.metrics),
            otlp_endpoint: self.otlp_endpoint.or(file.otlp_endpoint),
            otlp_sample: self.otlp_sample.or(file.otlp_sample),
            snapshot_after: self.snapshot_after.or(file.snapshot_after),
            snapshot_rate: self.snapshot_rate.or(file.snapshot_rate),
            node_grace: self.node_grace.or(file.node_grace),
            node_loss_interval: self.node_loss_interval.or(file.node_loss_interval),
            reserved_ports: self.reserved_ports.or(file.reserved_ports),
            config: None,
        }
    }

    fn complete(self) -> Result<Config, UsageError> {
        let missing =
            |flag: &str, what: &str| UsageError::Setting(format!("--{flag} is missing: {what}"));
        let advertise = self.advertise.ok_or_else(|| {
            missing(
                "advertise",
                "the host:port by which others reach this manager",
            )
        })?;
        let (host, port) = split_address(&advertise).ok_or_else(|| {
            UsageError::Setting(format!("--advertise {advertise}: host:port is expected"))
        })?;
        let listen = self.listen.unwrap_or_else(|| default_listen(host, port));
        let origin = match (self.bootstrap, self.join.is_empty(), self.token_file) {
            (true, true, None) => Origin::Bootstrap,
            (false, true, None) => Origin::Existing,
            (false, false, Some(token_file)) => Origin::Join {
                managers: self.join,
                token_file,
            },
            (true, ..) => {
                return Err(UsageError::Setting(
                    "bootstrap and join exclude each other".to_owned(),
                ));
            }
            (false, ..) => {
                return Err(UsageError::Setting(
                    "--join and --token-file go together".to_owned(),
                ));
            }
        };
        if let Origin::Join { managers, .. } = &origin
            && let Some(bad) = managers.iter().find(|m| split_address(m).is_none())
        {
            return Err(UsageError::Setting(format!(
                "--join {bad}: host:port is expected"
            )));
        }
        let config = Config {
            data_dir: self.data_dir.ok_or_else(|| {
                missing("data-dir", "the folder where this manager keeps everything")
            })?,
            advertise,
            listen,
            origin,
            pod_cidr: self.pod_cidr.unwrap_or_else(|| v4_range(10, 244)),
            service_cidr: self.service_cidr.unwrap_or_else(|| v4_range(10, 96)),
            min_disk_free: size("min-disk-free", self.min_disk_free.as_deref())?,
            certificate_lifetime: lifetime(self.certificate_lifetime)?,
            audit: !self.no_audit_log,
            log_format: self.log_format.unwrap_or_default(),
            metrics: self.metrics,
            otlp: Otlp::new(self.otlp_endpoint, self.otlp_sample).map_err(UsageError::Setting)?,
            snapshot_after: at_least_mebibyte("snapshot-after", self.snapshot_after.as_deref())?,
            snapshot_rate: at_least_mebibyte("snapshot-rate", self.snapshot_rate.as_deref())?,
            node_grace: node_grace(self.node_grace)?,
            node_loss_interval: self
                .node_loss_interval
                .map_or(NODE_LOSS_INTERVAL, |span| span.0),
            reserved_ports: reserved_ports(self.reserved_ports, listen, self.metrics),
        };
        check_ranges(config.pod_cidr, config.service_cidr)?;
        Ok(config)
    }
}

fn lifetime(asked: Option<Span>) -> Result<Duration, UsageError> {
    match asked {
        None => Ok(LEAF_LIFE),
        Some(Span(life)) if (SHORTEST_LIFE..=ROOT_LIFE).contains(&life) => Ok(life),
        Some(Span(life)) => Err(UsageError::Setting(format!(
            "--certificate-lifetime {} s: between {} s and {} days is expected",
            life.as_secs(),
            SHORTEST_LIFE.as_secs(),
            ROOT_LIFE.as_secs() / 86_400
        ))),
    }
}

/// With less, a node would be lost whose agent's life sign is a little late.
fn node_grace(asked: Option<Span>) -> Result<Duration, UsageError> {
    match asked {
        None => Ok(NODE_GRACE),
        Some(Span(grace)) if grace >= NODE_GRACE => Ok(grace),
        Some(Span(grace)) => Err(UsageError::Setting(format!(
            "--node-grace {} ms: at least {} s is expected",
            grace.as_millis(),
            NODE_GRACE.as_secs()
        ))),
    }
}

/// Managers may be nodes: a port on which this one listens is kept on all of them, unless it listens on a loopback address, where nodes
/// never answer for Services.
fn reserved_ports(
    asked: Option<ReservedPorts>,
    listen: SocketAddr,
    metrics: Option<SocketAddr>,
) -> ReservedPorts {
    let own = [
        (Some(listen), "the leader listens there"),
        (metrics, "the leader's --metrics"),
    ];
    own.into_iter()
        .filter_map(|(address, holder)| Some((address?, holder)))
        .filter(|(address, _)| !address.ip().is_loopback())
        .fold(asked.unwrap_or_default(), |ports, (address, holder)| {
            ports.and(address.port(), holder)
        })
}

/// A number of bytes with an optional suffix, as in manifests.
fn size(flag: &str, text: Option<&str>) -> Result<Option<u64>, UsageError> {
    let Some(text) = text else { return Ok(None) };
    text.parse()
        .and_then(Amount::whole)
        .ok()
        .and_then(|bytes| u64::try_from(bytes).ok())
        .map(Some)
        .ok_or_else(|| {
            UsageError::Setting(format!(
                "--{flag} {text}: a number of bytes is expected, such as 512Mi or 2Gi"
            ))
        })
}

/// With less, a manager would do nothing else than compacting, or a snapshot would be old before it has arrived.
fn at_least_mebibyte(flag: &str, text: Option<&str>) -> Result<Option<u64>, UsageError> {
    match size(flag, text)? {
        Some(bytes) if bytes < 1 << 20 => Err(UsageError::Setting(format!(
            "--{flag} {}: at least 1Mi is expected",
            text.unwrap_or_default()
        ))),
        bytes => Ok(bytes),
    }
}

fn default_listen(host: &str, port: u16) -> SocketAddr {
    let address = match host.parse::<IpAddr>() {
        // Nobody else could reach it there anyway.
        Ok(ip) if ip.is_loopback() => ip,
        Ok(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(address, port)
}

fn v4_range(a: u8, b: u8) -> IpNet {
    // 16 is a valid length: `new_assert` cannot fail, and is checked when this is compiled into a test.
    ipnet::Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), 16).into()
}

fn check_ranges(pods: IpNet, services: IpNet) -> Result<(), UsageError> {
    let wrong = |text: String| Err(UsageError::Setting(text));
    for (flag, range, longest) in [("pod-cidr", pods, 24), ("service-cidr", services, 28)] {
        let IpNet::V4(range) = range else {
            return wrong(format!("--{flag} {range}: an IPv4 range is expected"));
        };
        if range.prefix_len() > longest || range.prefix_len() < 8 {
            return wrong(format!(
                "--{flag} {range}: the length must be between /8 and /{longest}"
            ));
        }
        if range.trunc() != range {
            return wrong(format!(
                "--{flag} {range}: it should begin at {}",
                range.trunc()
            ));
        }
    }
    if pods.contains(&services) || services.contains(&pods) {
        return wrong(format!(
            "--pod-cidr {pods} and --service-cidr {services} overlap"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
