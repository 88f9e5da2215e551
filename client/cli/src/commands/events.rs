//! `barge events [--for KIND/NAME]`

use anyhow::{Result, bail};
use barge_client::{
    Selection, WatchEvent,
    v1::{Kind, Object, object},
};
use clap::Args;

use super::get::sort;
use crate::{
    args::Namespaces,
    context::Connection,
    names,
    output::{self, Columns, Table},
};

/// What events say of themselves.
const TYPES: &[&str] = &["Normal", "Warning"];

#[derive(Debug, Args)]
#[command(after_help = "Example: barge events --for deployment/web --types Warning -w")]
pub struct Events {
    #[command(flatten)]
    namespaces: Namespaces,
    /// Go on with what happens
    #[arg(short, long)]
    watch: bool,
    /// Only what happened to this object
    #[arg(long = "for", value_name = "KIND/NAME")]
    about: Option<String>,
    /// Only events of these types (Normal, Warning)
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Leave out the names of the columns
    #[arg(long)]
    no_headers: bool,
}

impl Events {
    /// The namespace to look into, empty for all, and the fields that events must have.
    fn selection(&self, to: &Connection) -> Result<Selection> {
        let mut namespace = self.namespaces.of(to)?;
        let mut fields = String::new();
        if let Some(about) = &self.about {
            let words = [about.clone()];
            let named = names::one(&words)?;
            fields = about_fields(&named.kind.name, named.name);
            // Where those of objects without a namespace are is for the managers to say.
            if !named.kind.namespaced {
                namespace.clear();
            }
        }
        Ok(Selection {
            fields,
            ..Selection::of(Kind::Event, &namespace)
        })
    }

    fn shows(&self, object: &Object) -> bool {
        let Some(object::Kind::Event(event)) = &object.kind else {
            return false;
        };
        self.types.is_empty()
            || self
                .types
                .iter()
                .any(|it| it.eq_ignore_ascii_case(&event.r#type))
    }

    fn head(&self, table: Table) -> Table {
        match self.no_headers {
            true => table.headless(),
            false => table,
        }
    }
}

fn about_fields(kind: &str, name: &str) -> String {
    format!("involvedObject.kind={kind},involvedObject.name={name}")
}

pub async fn run(to: &Connection, events: Events) -> Result<()> {
    let wrong = |it: &&String| !TYPES.iter().any(|known| it.eq_ignore_ascii_case(known));
    if let Some(wrong) = events.types.iter().find(wrong) {
        bail!(
            "\"{wrong}\" is no type of events: there are {}",
            TYPES.join(" and ")
        );
    }
    let selection = events.selection(to)?;
    let client = to.client()?;
    let columns = Columns {
        namespace: events.namespaces.all_namespaces,
        ..Columns::default()
    };
    if !events.watch {
        let mut objects = client.list(&selection).await?.objects;
        objects.retain(|object| events.shows(object));
        if objects.is_empty() {
            eprintln!("no events");
            return Ok(());
        }
        sort(&mut objects);
        let table = output::table(Kind::Event, &objects, &columns, output::now())?;
        return Ok(events.head(table).show()?);
    }
    let mut watcher = client.list_and_watch(selection);
    let mut table = events.head(Table::new(output::header(Kind::Event, &columns)));
    // What is there first comes by name; it is shown by time.
    let mut first: Option<Vec<Object>> = Some(Vec::new());
    loop {
        match (watcher.next().await?, &mut first) {
            (WatchEvent::Added(object) | WatchEvent::Modified(object), _)
                if !events.shows(&object) =>
            {
                continue;
            }
            (WatchEvent::Added(object) | WatchEvent::Modified(object), Some(first)) => {
                first.push(object);
                continue;
            }
            (WatchEvent::Added(object) | WatchEvent::Modified(object), None) => {
                table.push(output::row(&object, &columns, output::now())?);
            }
            (WatchEvent::Synced { .. }, _) => {
                let mut objects = first.take().unwrap_or_default();
                sort(&mut objects);
                for object in &objects {
                    table.push(output::row(object, &columns, output::now())?);
                }
            }
            (WatchEvent::Deleted(_), _) => continue,
        }
        table.show()?;
    }
}
