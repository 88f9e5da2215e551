//! `probes`: what 500 HTTP probes a second cost the agent.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use barge_agent::{
    clock::SystemClock,
    events::Recorder,
    outbox::Outbox,
    probes::{self, Meters, Outcome, Probed, Prober, state::Kind},
    runtime::{self, containerd::Containerd},
};
use barge_proto::v1::{
    Container, HttpGetAction, IntOrString, ObjectMeta, Pod, Probe, int_or_string::Value,
};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Builder,
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

use super::report::Row;

const ROUNDS: usize = 3;
/// Containers with a probe each second.
const CONTAINERS: usize = 500;
const WARM_UP: Duration = Duration::from_secs(3);
const ROUND: Duration = Duration::from_secs(10);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Probes 500 containers each second, on a thread of its own, whose processor time is taken. The server has another thread.
///
/// # Errors
/// When an attempt fails, or fewer were made than were due.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let (sender, address) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(serve(sender))
    });
    let address = address.recv().context("the server listens")?;
    let prober = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(measure(address))
    });
    let shares = prober.join().ok().context("the prober's thread ended")??;
    Ok(vec![Row::least(
        format!("probes, {CONTAINERS} a second by HTTP"),
        "% of a core",
        &shares,
    )])
}

async fn serve(sender: std::sync::mpsc::Sender<SocketAddr>) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    sender.send(listener.local_addr()?)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut request = [0; 1024];
            if stream.read(&mut request).await.is_ok() {
                // A prober that has gone is its own affair.
                let _ = stream.write_all(ANSWER).await;
            }
        });
    }
}

async fn measure(address: SocketAddr) -> anyhow::Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let outbox = Arc::new(Outbox::new(1));
    let clock = Arc::new(SystemClock);
    let prober = Prober::new(probes::Options {
        // It is asked for programs only, and there are none.
        runtime: Arc::new(Containerd::new(runtime::Options::new(folder.path())?)?),
        clock: clock.clone(),
        recorder: Recorder::new(outbox, clock),
        data_dir: folder.path().to_owned(),
        node: Box::new(|| None),
    });
    let stop = CancellationToken::new();
    let _until_measured = stop.clone().drop_guard();
    tokio::spawn(prober.clone().run(stop));
    let pods: Vec<_> = (0..CONTAINERS).map(|number| pod(number, address)).collect();
    let mut registrations = Vec::new();
    for pod in &pods {
        let uid = pod.metadata.as_ref().map_or("", |meta| &meta.uid);
        let mut registration = prober.register(uid, Arc::new(Notify::new()));
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let running: Vec<_> = containers
            .map(|container| Probed {
                id: uid,
                // For long: the attempts are spread over the period. (0 is a start of which nothing is known.)
                started_ms: 1,
                container,
                ip: Some(address.ip()),
                reported: None,
            })
            .collect();
        registration.sync(pod, &running);
        registrations.push(registration);
    }
    tokio::time::sleep(WARM_UP).await;
    let mut shares = Vec::new();
    for _ in 0..ROUNDS {
        let (begun, before, made) = (Instant::now(), busy()?, succeeded(prober.meters()));
        tokio::time::sleep(ROUND).await;
        let took = begun.elapsed().as_secs_f64();
        shares.push((busy()? - before) / took * 100.0);
        let made = succeeded(prober.meters()) - made;
        let due = CONTAINERS as f64 * took;
        ensure!(
            made as f64 > 0.95 * due,
            "{made} of {due} attempts were made"
        );
    }
    let failed = prober.meters().count(Kind::Readiness, Outcome::Failure);
    ensure!(failed == 0, "{failed} attempts failed");
    Ok(shares)
}

fn succeeded(meters: &Meters) -> u64 {
    meters.count(Kind::Readiness, Outcome::Success)
}

/// Processor time of this thread in seconds.
fn busy() -> anyhow::Result<f64> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?).as_secs_f64())
}

fn pod(number: usize, address: SocketAddr) -> Pod {
    let name = format!("p{number}");
    let get = HttpGetAction {
        path: "/healthz".into(),
        port: Some(IntOrString {
            value: Some(Value::Int(address.port().into())),
        }),
        scheme: "HTTP".into(),
        ..HttpGetAction::default()
    };
    let container = Container {
        name: "web".into(),
        readiness_probe: Some(Probe {
            http_get: Some(get),
            period_seconds: 1,
            timeout_seconds: 1,
            ..Probe::default()
        }),
        ..Container::default()
    };
    Pod {
        metadata: Some(ObjectMeta {
            name: name.clone(),
            uid: name,
            ..ObjectMeta::default()
        }),
        spec: Some(barge_proto::v1::PodSpec {
            containers: vec![container],
            ..barge_proto::v1::PodSpec::default()
        }),
        ..Pod::default()
    }
}
