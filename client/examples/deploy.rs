//! Deploys, waits, lists, scales and deletes, as a program would.
//!
//! ```text
//! cargo run --release -p barge-client --example deploy -- --config admin.toml [--image nginx:latest]
//! ```

use std::{collections::BTreeMap, env, error::Error, io, path::PathBuf, time::Duration};

use barge_client::{
    ApplyOptions, Client, ClientOptions, DeleteOptions, Selection, UpdateOptions, WatchEvent,
    config::Config,
    v1::{
        Container, Deployment, DeploymentSpec, Kind, LabelSelector, Object, ObjectMeta, PodSpec,
        PodTemplateSpec,
    },
};
use tokio::time::timeout;

const NAMESPACE: &str = "default";
const NAME: &str = "client-example";
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (config, image) = arguments()?;
    let config = Config::load(&config)?;
    let client = Client::from_context(config.context(None)?, ClientOptions::default())?;

    let answer = client
        .apply(vec![deployment(&image, 2).into()], &ApplyOptions::default())
        .await?;
    println!("applied at revision {}", answer.revision);
    until_available(&client, 2).await?;

    let pods = Selection {
        labels: format!("app={NAME}"),
        ..Selection::of(Kind::Pod, NAMESPACE)
    };
    for pod in client.list(&pods).await?.objects {
        println!("pod {}", pod.name());
    }

    client
        .scale(
            Kind::Deployment,
            NAMESPACE,
            NAME,
            3,
            &UpdateOptions::default(),
        )
        .await?;
    until_available(&client, 3).await?;
    println!("scaled to 3");

    client
        .delete(Kind::Deployment, NAMESPACE, NAME, &DeleteOptions::default())
        .await?;
    until_no_pods(&client, pods).await?;
    println!("deleted");
    Ok(())
}

fn arguments() -> Result<(PathBuf, String), io::Error> {
    let (mut config, mut image) = (env::var_os("BARGE_CONFIG").map(PathBuf::from), None);
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        match (word.as_str(), words.next()) {
            ("--config", Some(value)) => config = Some(value.into()),
            ("--image", Some(value)) => image = Some(value),
            _ => {
                return Err(io::Error::other(
                    "usage: deploy --config FILE [--image IMAGE]",
                ));
            }
        }
    }
    let config = config.ok_or_else(|| io::Error::other("pass --config, or set BARGE_CONFIG"))?;
    Ok((config, image.unwrap_or_else(|| "nginx:latest".to_owned())))
}

fn deployment(image: &str, replicas: i32) -> Deployment {
    let labels = BTreeMap::from([("app".to_owned(), NAME.to_owned())]);
    Deployment {
        metadata: Some(ObjectMeta {
            name: NAME.to_owned(),
            namespace: NAMESPACE.to_owned(),
            ..ObjectMeta::default()
        }),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: Some(LabelSelector {
                match_labels: labels.clone(),
                ..LabelSelector::default()
            }),
            template: Some(PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels,
                    ..ObjectMeta::default()
                }),
                spec: Some(PodSpec {
                    containers: vec![Container {
                        name: "main".to_owned(),
                        image: image.to_owned(),
                        ..Container::default()
                    }],
                    ..PodSpec::default()
                }),
            }),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

async fn until_available(client: &Client, wanted: i32) -> Result<(), Box<dyn Error>> {
    let mut watcher = client.list_and_watch(Selection {
        name: NAME.to_owned(),
        ..Selection::of(Kind::Deployment, NAMESPACE)
    });
    let available = async {
        loop {
            let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = watcher.next().await?
            else {
                continue;
            };
            if is_available(object, wanted) {
                return Ok::<_, Box<dyn Error>>(());
            }
        }
    };
    timeout(PATIENCE, available).await?
}

fn is_available(object: Object, wanted: i32) -> bool {
    let Ok(deployment) = Deployment::try_from(object) else {
        return false;
    };
    let generation = deployment
        .metadata
        .map_or(0, |metadata| metadata.generation);
    let status = deployment.status.unwrap_or_default();
    status.observed_generation >= generation
        && status.updated_replicas == wanted
        && status.available_replicas == wanted
}

async fn until_no_pods(client: &Client, pods: Selection) -> Result<(), Box<dyn Error>> {
    let mut watcher = client.list_and_watch(pods);
    let gone = async {
        loop {
            let event = watcher.next().await?;
            let settled = matches!(event, WatchEvent::Synced { .. } | WatchEvent::Deleted(_));
            if settled && watcher.objects().next().is_none() {
                return Ok::<_, Box<dyn Error>>(());
            }
        }
    };
    timeout(PATIENCE, gone).await?
}
