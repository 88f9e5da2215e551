//! Benchmarks: each measures Barge and, in the same run, a peer where one can run here.

pub mod bare;
pub mod churn_memory;
pub mod container_start;
pub mod etcd;
pub mod idle_memory;
pub mod leader_kill;
pub mod leader_restart;
pub mod load;
pub mod log_flood;
pub mod long_apply;
pub mod manager_freeze;
pub mod node_loss;
pub mod probes;
pub mod reads;
pub mod replicas;
pub mod report;
pub mod rolling_update;
pub mod snapshot;
pub mod start_up;
pub mod watch_fanout;
pub mod writes;

use report::Row;

/// A benchmark: its name, what it measures, and how.
pub struct Benchmark {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn() -> anyhow::Result<Vec<Row>>,
}

/// All of them, in the order in which they run.
pub const ALL: &[Benchmark] = &[
    Benchmark {
        name: "container-start",
        about: "one container, applied to running, beside the bare start through containerd with the same CNI",
        run: container_start::run,
    },
    Benchmark {
        name: "replicas-60",
        about: "60 replicas on one node, applied to running, beside 60 bare starts with the same CNI",
        run: replicas::sixty,
    },
    Benchmark {
        name: "replicas-200",
        about: "200 replicas on two nodes, applied to running, beside 200 bare starts with the same CNI",
        run: replicas::two_hundred,
    },
    Benchmark {
        name: "log-flood",
        about: "a container that writes 1 GiB as fast as it can: the rate, and the carrier's processor time and memory",
        run: log_flood::run,
    },
    Benchmark {
        name: "probes",
        about: "500 HTTP probes a second: the agent's processor time",
        run: probes::run,
    },
    Benchmark {
        name: "rolling-update",
        about: "requests that fail while two replicas roll, with a connection for each and with kept connections",
        run: rolling_update::run,
    },
    Benchmark {
        name: "leader-kill",
        about: "SIGKILL of the leader to the next acknowledged write, 20 times",
        run: leader_kill::run,
    },
    Benchmark {
        name: "leader-restart",
        about: "the longest wait of a write while the leader is stopped and started again, 20 times",
        run: leader_restart::run,
    },
    Benchmark {
        name: "writes",
        about: "durable writes of 1 KiB a second with 1, 16, 256 and 1,000 clients, beside etcd",
        run: writes::run,
    },
    Benchmark {
        name: "reads",
        about: "linearizable and stale reads of 1 KiB with 1, 16, 256 and 1,000 clients over three members, beside etcd",
        run: reads::run,
    },
    Benchmark {
        name: "watch-fanout",
        about: "memory of 10,000 idle watchers, and changes a second that reach 1,000 watchers of different namespaces",
        run: watch_fanout::run,
    },
    Benchmark {
        name: "start-up",
        about: "the start of a manager's process to its first acknowledged write, new and with data, beside etcd with one member",
        run: start_up::run,
    },
    Benchmark {
        name: "snapshot",
        about: "a million pods (or BARGE_BENCH_PODS): bytes a pod, restore, restart, and a manager that joins",
        run: snapshot::run,
    },
    Benchmark {
        name: "long-apply",
        about: "the longest wait of a write while a namespace with 100,000 pods (or BARGE_BENCH_PODS) is deleted",
        run: long_apply::run,
    },
    Benchmark {
        name: "idle-memory",
        about: "memory (PSS) of managers and agent with the examples running for a minute, and of the agent with 0, 10 and 100 pods",
        run: idle_memory::run,
    },
    Benchmark {
        name: "node-loss",
        about: "a machine cut off, alone and with the leader, to all replicas Ready elsewhere, 10 times each",
        run: node_loss::run,
    },
    Benchmark {
        name: "manager-freeze",
        about: "the longest gap of life signs at the leader while a follower stands still and while logs are unread, and pods replaced when all managers stood still",
        run: manager_freeze::run,
    },
    Benchmark {
        name: "churn-memory",
        about: "memory (PSS) of managers after 1,000 (or BARGE_BENCH_ROUNDS) rounds of Deployments and ten minutes (or BARGE_BENCH_QUIET seconds)",
        run: churn_memory::run,
    },
];
