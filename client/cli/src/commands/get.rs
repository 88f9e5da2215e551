//! `barge get KIND[,KIND] [NAME…]`

use std::io::{self, Write};

use anyhow::{Result, bail};
use barge_client::{Client, Selection, WatchEvent, v1::Object};
use barge_proto::kinds::{self, KindInfo};
use clap::Args;

use crate::{
    args::{Format, Namespaces},
    context::Connection,
    explain, names,
    names::Named,
    output::{self, Columns},
};

#[derive(Debug, Args)]
pub struct Get {
    /// KIND[,KIND] and names, or KIND/NAME
    #[arg(required = true, value_name = "KIND[,KIND] [NAME]")]
    what: Vec<String>,
    #[command(flatten)]
    namespaces: Namespaces,
    /// Only objects with these labels ("app=web,tier!=db,env in (a,b),!x")
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    selector: String,
    /// Only objects with these fields ("status.phase=Running,spec.nodeName!=n1")
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "SELECTOR"
    )]
    field_selector: String,
    /// Show who set which fields, in JSON and YAML
    #[arg(long)]
    show_managed_fields: bool,
    /// Go on with every change
    #[arg(short, long)]
    watch: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

pub async fn run(to: &Connection, get: Get) -> Result<()> {
    let first = get.what.first().map_or("", String::as_str);
    let named = get.what.len() > 1 || first.contains('/');
    if named {
        let selects = !get.selector.is_empty() || !get.field_selector.is_empty();
        if selects || get.namespaces.all_namespaces {
            bail!("names go neither with selectors nor with --all-namespaces");
        }
        if first.contains(',') {
            bail!("names go with one kind; KIND/NAME for each goes with several");
        }
        let named = names::several(&get.what)?;
        return by_name(&to.client()?, &get, &named).await;
    }
    let kinds = first
        .split(',')
        .map(kinds::by_name)
        .collect::<Result<Vec<_>, _>>()?;
    let client = to.client()?;
    if get.watch {
        let [kind] = kinds[..] else {
            bail!("--watch follows one kind");
        };
        return watch(&client, &get, kind, "").await;
    }
    by_kind(&client, &get, &kinds).await
}

fn selection(get: &Get, kind: &KindInfo) -> Selection {
    Selection {
        kind: kind.kind,
        namespace: names::namespace_of(kind, get.namespaces.name()).to_owned(),
        labels: get.selector.clone(),
        fields: get.field_selector.clone(),
        ..Selection::default()
    }
}

/// Managed fields are for programs, so they are hidden unless the user asks for them.
fn shown(get: &Get, mut object: Object) -> Object {
    if !get.show_managed_fields
        && let Some(metadata) = object.metadata_mut()
    {
        metadata.managed_fields.clear();
    }
    object
}

fn is_table(format: Format) -> bool {
    matches!(format, Format::Table | Format::Wide)
}

fn columns(get: &Get, kind: &KindInfo) -> Columns {
    Columns {
        wide: get.output == Format::Wide,
        namespace: kind.namespaced && get.namespaces.all_namespaces,
        kind: false,
    }
}

async fn by_kind(client: &Client, get: &Get, kinds: &[&KindInfo]) -> Result<()> {
    let mut all = Vec::new();
    for kind in kinds {
        let listing = client.list(&selection(get, kind)).await?;
        if !listing.consistent {
            let plural = &kind.plural;
            eprintln!(
                "{plural} changed faster than they were listed: not all are shown as of one moment"
            );
        }
        let mut objects = listing.objects;
        sort(&mut objects);
        all.push((*kind, objects));
    }
    if !is_table(get.output) {
        let objects = all.into_iter().flat_map(|(_, objects)| objects);
        let objects: Vec<_> = objects.map(|object| shown(get, object)).collect();
        return output::list(&objects, get.output);
    }
    let now = output::now();
    let mut shown = 0;
    for (kind, objects) in all.iter().filter(|(_, objects)| !objects.is_empty()) {
        if shown > 0 {
            writeln!(io::stdout())?;
        }
        let columns = Columns {
            kind: kinds.len() > 1,
            ..columns(get, kind)
        };
        output::table(kind.kind, objects, columns, now).show()?;
        shown += 1;
    }
    if shown == 0 {
        let namespaced = kinds.iter().all(|kind| kind.namespaced);
        let place = match namespaced && !get.namespaces.all_namespaces {
            true => format!(" in namespace {}", get.namespaces.name()),
            false => String::new(),
        };
        let plurals: Vec<_> = kinds.iter().map(|kind| &*kind.plural).collect();
        eprintln!("no {} found{place}", plurals.join(", "));
    }
    Ok(())
}

/// Events by time, the rest by namespace and name as they come.
pub fn sort(objects: &mut [Object]) {
    objects.sort_by_key(|object| match &object.kind {
        Some(barge_client::v1::object::Kind::Event(event)) => event
            .last_timestamp
            .map_or((0, 0), |time| (time.seconds, time.nanos)),
        _ => (0, 0),
    });
}

async fn by_name(client: &Client, get: &Get, named: &[Named<'_>]) -> Result<()> {
    if get.watch {
        let [Named { kind, name }] = named else {
            bail!("--watch follows one object, or all of a kind");
        };
        return watch(client, get, kind, name).await;
    }
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for one in named {
        let namespace = names::namespace_of(one.kind, get.namespaces.name());
        match client.find(one.kind.kind, namespace, one.name).await? {
            Some(object) => found.push((one.kind, object)),
            None => missing.push(names::not_found(client, *one, namespace).await),
        }
    }
    show_named(get, named, found)?;
    match missing.pop() {
        None => Ok(()),
        Some(last) => {
            missing.iter().for_each(explain::print);
            Err(last)
        }
    }
}

fn show_named(
    get: &Get,
    named: &[Named<'_>],
    found: Vec<(&'static KindInfo, Object)>,
) -> Result<()> {
    if !is_table(get.output) {
        let objects = found.into_iter().map(|(_, object)| shown(get, object));
        let objects: Vec<_> = objects.collect();
        return match (&objects[..], named) {
            ([object], [_]) => output::object(object, get.output),
            ([], _) => Ok(()),
            (objects, _) => output::list(objects, get.output),
        };
    }
    // Neighbours of one kind share a table.
    let several = found.iter().any(|(kind, _)| *kind != found[0].0);
    let now = output::now();
    for (index, group) in found.chunk_by(|a, b| a.0 == b.0).enumerate() {
        if index > 0 {
            writeln!(io::stdout())?;
        }
        let objects: Vec<_> = group.iter().map(|(_, object)| object.clone()).collect();
        let kind = group[0].0;
        let columns = Columns {
            kind: several,
            ..columns(get, kind)
        };
        output::table(kind.kind, &objects, columns, now).show()?;
    }
    Ok(())
}

/// Prints what is there, then a row or document for every change.
async fn watch(client: &Client, get: &Get, kind: &KindInfo, name: &str) -> Result<()> {
    let mut watcher = client.list_and_watch(Selection {
        name: name.to_owned(),
        ..selection(get, kind)
    });
    let columns = columns(get, kind);
    let mut table = output::Table::new(output::header(kind.kind, columns));
    let mut synced = false;
    loop {
        match watcher.next().await? {
            WatchEvent::Synced { .. } => synced = true,
            WatchEvent::Added(object) | WatchEvent::Modified(object) if is_table(get.output) => {
                table.push(output::row(&object, columns, output::now()));
            }
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                if get.output == Format::Yaml {
                    writeln!(io::stdout(), "---")?;
                }
                output::object(&shown(get, object), get.output)?;
            }
            WatchEvent::Deleted(object) if is_table(get.output) => {
                table.push(output::row(&object, columns, output::now()));
            }
            WatchEvent::Deleted(_) => {}
        }
        // What is there at first lines up in one table.
        if synced && is_table(get.output) {
            table.show()?;
        }
    }
}
