//! `barge top pods|nodes [NAME]`

use std::cmp::Reverse;

use anyhow::{Result, bail};
use barge_client::v1::{
    ContainerMetrics, NodeMetrics, NodeMetricsRequest, PodMetrics, PodMetricsRequest,
};
use clap::{Args, Subcommand, ValueEnum};

use crate::{args::Namespaces, context::Connection, duration::Span, output::Table};

/// What is not measured yet.
const UNKNOWN: &str = "<unknown>";

const PODS: &str = "\
Examples:
  barge top pods
  barge top pods -A --sort-by cpu
  barge top pod web-1 --containers
  barge top pods -l app=web --sum --window 5m";

const NODES: &str = "\
Examples:
  barge top nodes
  barge top node n1
  barge top nodes -l disk=ssd --sort-by memory";

#[derive(Debug, Subcommand)]
pub enum Top {
    /// Show what pods take of processors and memory
    #[command(visible_aliases = ["pod", "po"], after_help = PODS)]
    Pods(Pods),
    /// Show what nodes take of processors and memory, pods and all else
    #[command(visible_aliases = ["node", "no"], after_help = NODES)]
    Nodes(Nodes),
}

#[derive(Debug, Args)]
pub struct Pods {
    /// The pod
    #[arg(conflicts_with_all = ["selector", "all_namespaces"])]
    name: Option<String>,
    #[command(flatten)]
    namespaces: Namespaces,
    /// A row for each container
    #[arg(long)]
    containers: bool,
    /// A last row with the sum of all
    #[arg(long)]
    sum: bool,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Debug, Args)]
pub struct Nodes {
    /// The node
    #[arg(conflicts_with = "selector")]
    name: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Debug, Args)]
struct Shown {
    /// Only those with these labels ("app=web,tier!=db")
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    selector: String,
    /// The largest first; by name where this is left out
    #[arg(long, value_enum, value_name = "WHAT")]
    sort_by: Option<By>,
    /// Over how much of the last time processors are averaged ("15s", "5m"); at most 1h
    #[arg(long, default_value = "15s", value_name = "DURATION")]
    window: Span,
    /// Leave out the names of the columns
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Cpu,
    Memory,
}

/// What something takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Taken {
    /// Thousandths of a core; `None` before the second sample.
    cpu: Option<u64>,
    /// Bytes.
    memory: u64,
}

pub async fn run(to: &Connection, top: Top) -> Result<()> {
    match top {
        Top::Pods(pods) => Box::pin(of_pods(to, pods)).await,
        Top::Nodes(nodes) => Box::pin(of_nodes(to, nodes)).await,
    }
}

async fn of_pods(to: &Connection, asked: Pods) -> Result<()> {
    let namespace = asked.namespaces.of(to)?;
    let request = PodMetricsRequest {
        namespace: namespace.clone(),
        name: asked.name.clone().unwrap_or_default(),
        label_selector: asked.shown.selector.clone(),
        window_seconds: asked.shown.window()?,
    };
    let answer = to.client()?.pod_metrics(&request).await?;
    let is_empty = answer.pods.is_empty();
    if !is_empty {
        pod_table(answer.pods, &asked).show()?;
    }
    let none = match namespace.as_str() {
        "" => "no pods run".to_owned(),
        namespace => format!("no pods run in namespace {namespace}"),
    };
    told(&answer.warnings, is_empty, asked.name.is_some(), &none)
}

async fn of_nodes(to: &Connection, asked: Nodes) -> Result<()> {
    let request = NodeMetricsRequest {
        name: asked.name.clone().unwrap_or_default(),
        label_selector: asked.shown.selector.clone(),
        window_seconds: asked.shown.window()?,
    };
    let answer = to.client()?.node_metrics(&request).await?;
    let is_empty = answer.nodes.is_empty();
    if !is_empty {
        node_table(answer.nodes, &asked.shown).show()?;
    }
    told(&answer.warnings, is_empty, asked.name.is_some(), "no nodes")
}

/// Says what is missing. It is an error when that is what was asked for by name.
fn told(warnings: &[String], is_empty: bool, named: bool, none: &str) -> Result<()> {
    match warnings {
        [] if is_empty => eprintln!("{none}"),
        [_, ..] if is_empty && named => bail!("{}", warnings.join("; ")),
        _ => warnings
            .iter()
            .for_each(|warning| eprintln!("warning: {warning}")),
    }
    Ok(())
}

impl Shown {
    fn window(&self) -> Result<u32> {
        let seconds = self.window.0.as_secs();
        match u32::try_from(seconds) {
            Ok(seconds @ 1..=3600) => Ok(seconds),
            _ => bail!("--window {seconds}s: nodes average over 1 s to 1 h"),
        }
    }

    fn sort<T>(&self, rows: &mut [T], taken: impl Fn(&T) -> Taken) {
        match self.sort_by {
            Some(By::Cpu) => rows.sort_by_key(|row| Reverse(taken(row).cpu)),
            Some(By::Memory) => rows.sort_by_key(|row| Reverse(taken(row).memory)),
            // As the managers list them.
            None => {}
        }
    }

    fn head(&self, table: Table) -> Table {
        match self.no_headers {
            true => table.headless(),
            false => table,
        }
    }
}

fn pod_table(mut pods: Vec<PodMetrics>, asked: &Pods) -> Table {
    let shown = &asked.shown;
    let mut header = match asked.containers {
        true => vec!["POD", "NAME", "CPU(cores)", "MEMORY(bytes)"],
        false => vec!["NAME", "CPU(cores)", "MEMORY(bytes)"],
    };
    if asked.namespaces.all_namespaces {
        header.insert(0, "NAMESPACE");
    }
    let width = header.len();
    let mut table = Table::new(header);
    let begin = |pod: &PodMetrics| {
        let all = asked.namespaces.all_namespaces;
        let namespace = all.then(|| pod.namespace.clone());
        Vec::from_iter(namespace.into_iter().chain([pod.name.clone()]))
    };
    if asked.containers {
        let all = pods.iter().flat_map(|pod| {
            let containers = pod.containers.iter();
            containers.map(move |container| (pod, container))
        });
        let mut rows: Vec<_> = all.collect();
        shown.sort(&mut rows, |(_, container)| of_container(container));
        for (pod, container) in rows {
            let mut row = begin(pod);
            row.push(container.name.clone());
            row.extend(cells(of_container(container)));
            table.push(row);
        }
    } else {
        shown.sort(&mut pods, of_pod);
        for pod in &pods {
            let mut row = begin(pod);
            row.extend(cells(of_pod(pod)));
            table.push(row);
        }
    }
    if asked.sum {
        let total = sum(pods.iter().map(of_pod));
        let blank = || vec![String::new(); width - 2];
        table.push([blank(), vec!["________".to_owned(); 2]].concat());
        table.push([blank(), cells(total).to_vec()].concat());
    }
    shown.head(table)
}

fn node_table(mut nodes: Vec<NodeMetrics>, shown: &Shown) -> Table {
    let header = ["NAME", "CPU(cores)", "CPU%", "MEMORY(bytes)", "MEMORY%"];
    let mut table = Table::new(header.to_vec());
    shown.sort(&mut nodes, of_node);
    for node in &nodes {
        let taken = of_node(node);
        let [cpu, memory] = cells(taken);
        let cpu_part = taken
            .cpu
            .and_then(|cpu| percent(cpu, node.allocatable_cpu_millis));
        let memory_part = percent(taken.memory, node.allocatable_memory_bytes);
        let part = |part: Option<String>| part.unwrap_or_else(|| UNKNOWN.to_owned());
        let name = node.name.clone();
        table.push(vec![name, cpu, part(cpu_part), memory, part(memory_part)]);
    }
    shown.head(table)
}

fn of_container(container: &ContainerMetrics) -> Taken {
    Taken {
        cpu: (container.window_ms > 0).then_some(container.cpu_millis),
        memory: container.memory_bytes,
    }
}

fn of_pod(pod: &PodMetrics) -> Taken {
    sum(pod.containers.iter().map(of_container))
}

fn of_node(node: &NodeMetrics) -> Taken {
    Taken {
        cpu: (node.window_ms > 0).then_some(node.cpu_millis),
        memory: node.memory_bytes,
    }
}

/// Of processors, the sum of those that are known.
fn sum(all: impl Iterator<Item = Taken>) -> Taken {
    all.fold(Taken::default(), |sum, one| Taken {
        cpu: match (sum.cpu, one.cpu) {
            (Some(sum), Some(one)) => Some(sum.saturating_add(one)),
            (sum, one) => sum.or(one),
        },
        memory: sum.memory.saturating_add(one.memory),
    })
}

/// As kubectl writes them: "12m" and "34Mi".
fn cells(taken: Taken) -> [String; 2] {
    let cpu = taken
        .cpu
        .map_or_else(|| UNKNOWN.to_owned(), |cpu| format!("{cpu}m"));
    [cpu, format!("{}Mi", taken.memory >> 20)]
}

fn percent(part: u64, whole: u64) -> Option<String> {
    let percent = u128::from(part) * 100 / (whole > 0).then(|| u128::from(whole))?;
    Some(format!("{percent}%"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        top: Top,
    }

    fn pods(words: &[&str]) -> Pods {
        let words = [&["top"][..], words].concat();
        match Line::try_parse_from(words).unwrap().top {
            Top::Pods(pods) => pods,
            Top::Nodes(_) => panic!("these are nodes"),
        }
    }

    fn container(name: &str, cpu: u64, mebibytes: u64) -> ContainerMetrics {
        ContainerMetrics {
            name: name.into(),
            window_ms: u32::from(cpu > 0) * 15_000,
            cpu_millis: cpu,
            memory_bytes: (mebibytes << 20) + 5,
            ..ContainerMetrics::default()
        }
    }

    fn pod(name: &str, containers: &[ContainerMetrics]) -> PodMetrics {
        PodMetrics {
            namespace: "shop".into(),
            name: name.into(),
            containers: containers.to_vec(),
            ..PodMetrics::default()
        }
    }

    fn shown(mut table: Table) -> String {
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn some() -> Vec<PodMetrics> {
        vec![
            pod("a", &[container("web", 12, 34)]),
            pod("b", &[container("web", 100, 1), container("side", 50, 2)]),
            pod("new", &[container("web", 0, 7)]),
        ]
    }

    #[test]
    fn pods_as_fingers_know_them() {
        let plain = shown(pod_table(some(), &pods(&["po"])));
        assert_eq!(
            plain,
            "NAME   CPU(cores)   MEMORY(bytes)\na      12m          34Mi\nb      150m         3Mi\nnew    <unknown>    7Mi\n"
        );
        let sorted = pods(&["pods", "-A", "--sort-by", "cpu", "--no-headers", "--sum"]);
        let sorted = shown(pod_table(some(), &sorted));
        assert_eq!(
            sorted,
            "shop   b     150m        3Mi\nshop   a     12m         34Mi\nshop   new   <unknown>   7Mi\n             ________    ________\n             162m        44Mi\n"
        );
        let each = pods(&["pod", "--containers", "--sort-by=memory"]);
        let each = shown(pod_table(some(), &each));
        let names: Vec<_> = each.lines().map(|line| &line[..10]).collect();
        assert_eq!(
            names,
            [
                "POD   NAME",
                "a     web ",
                "new   web ",
                "b     side",
                "b     web "
            ]
        );
    }

    #[test]
    fn nodes_have_parts_of_what_is_for_pods() {
        let node = |name: &str, allocatable| NodeMetrics {
            name: name.into(),
            window_ms: 15_000,
            cpu_millis: 500,
            memory_bytes: 1 << 30,
            allocatable_cpu_millis: allocatable,
            allocatable_memory_bytes: 4 << 30,
            ..NodeMetrics::default()
        };
        let line = Line::try_parse_from(["top", "no"]).unwrap();
        let Top::Nodes(asked) = line.top else {
            panic!("these are pods")
        };
        let table = node_table(vec![node("n1", 2000), node("n2", 0)], &asked.shown);
        assert_eq!(
            shown(table),
            "NAME   CPU(cores)   CPU%        MEMORY(bytes)   MEMORY%\nn1     500m         25%         1024Mi          25%\nn2     500m         <unknown>   1024Mi          25%\n"
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for words in [
            &["top", "pods", "a", "-A"][..],
            &["top", "pods", "a", "-l", "x=y"],
            &["top", "nodes", "a", "-l", "x=y"],
            &["top", "pods", "--sort-by", "name"],
        ] {
            assert!(Line::try_parse_from(words).is_err(), "{words:?}");
        }
        let day = pods(&["pods", "--window", "1d"]);
        let error = day.shown.window().unwrap_err().to_string();
        assert!(error.contains("1 s to 1 h"), "{error}");
    }

    #[test]
    fn what_is_missing_is_an_error_only_when_it_was_named() {
        let warnings = ["node n1 did not answer within 3 s".to_owned()];
        assert!(told(&warnings, true, true, "").is_err());
        assert!(told(&warnings, true, false, "").is_ok());
        assert!(told(&[], true, true, "no pods").is_ok());
    }
}
