//! `barge events`

use anyhow::Result;
use barge_client::{
    Selection, WatchEvent,
    v1::{Kind, Object},
};
use clap::Args;

use super::get::sort;
use crate::{
    args::Namespaces,
    context::Connection,
    output::{self, Columns, Table},
};

#[derive(Debug, Args)]
pub struct Events {
    #[command(flatten)]
    namespaces: Namespaces,
    /// Go on with what happens
    #[arg(short, long)]
    watch: bool,
}

pub async fn run(to: &Connection, events: Events) -> Result<()> {
    let client = to.client()?;
    let selection = Selection::of(Kind::Event, events.namespaces.name());
    let columns = Columns {
        namespace: events.namespaces.all_namespaces,
        ..Columns::default()
    };
    if !events.watch {
        let mut objects = client.list(&selection).await?.objects;
        if objects.is_empty() {
            eprintln!("no events");
            return Ok(());
        }
        sort(&mut objects);
        return Ok(output::table(Kind::Event, &objects, columns, output::now()).show()?);
    }
    let mut watcher = client.list_and_watch(selection);
    let mut table = Table::new(output::header(Kind::Event, columns));
    // What is there first comes by name; it is shown by time.
    let mut first: Option<Vec<Object>> = Some(Vec::new());
    loop {
        match (watcher.next().await?, &mut first) {
            (WatchEvent::Added(object) | WatchEvent::Modified(object), Some(first)) => {
                first.push(object);
                continue;
            }
            (WatchEvent::Added(object) | WatchEvent::Modified(object), None) => {
                table.push(output::row(&object, columns, output::now()));
            }
            (WatchEvent::Synced { .. }, _) => {
                let mut objects = first.take().unwrap_or_default();
                sort(&mut objects);
                for object in &objects {
                    table.push(output::row(object, columns, output::now()));
                }
            }
            (WatchEvent::Deleted(_), _) => continue,
        }
        table.show()?;
    }
}
