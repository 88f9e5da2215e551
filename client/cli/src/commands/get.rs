//! `barge get KIND[,KIND] [NAME…]`

use std::io::{self, Write};

use anyhow::{Result, bail};
use barge_client::{Client, Selection, WatchEvent, v1::Object};
use barge_proto::kinds::KindInfo;
use clap::Args;

use crate::{
    args::Namespaces,
    context::Connection,
    explain,
    jsonpath::Template,
    names,
    names::Named,
    output::{self, Columns, Format, Table},
};

const EXAMPLES: &str = "\
Examples:
  barge get pods,services -l app=web -L tier
  barge get all -n shop
  barge get pods -A --sort-by .metadata.creationTimestamp --no-headers
  barge get deployment/web -o jsonpath='{.spec.template.spec.containers[*].image}{\"\\n\"}'
  barge get pods -o custom-columns=NAME:.metadata.name,NODE:.spec.nodeName";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Get {
    /// KIND[,KIND] and names, or KIND/NAME; \"all\" is pods, services and the kinds that make pods
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
    /// table, wide, json, yaml, name, jsonpath=TEMPLATE, jsonpath-file=FILE or custom-columns=NAME:PATH,…
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,
    /// Leave out the names of the columns
    #[arg(long)]
    no_headers: bool,
    /// In the order of this field (".metadata.creationTimestamp")
    #[arg(long, value_name = "PATH", value_parser = path, conflicts_with = "watch")]
    sort_by: Option<Template>,
    /// A column for the value of each of these labels
    #[arg(short = 'L', long, value_name = "LABEL", value_delimiter = ',')]
    label_columns: Vec<String>,
    /// A column with all labels
    #[arg(long)]
    show_labels: bool,
    /// An object that does not exist is no error
    #[arg(long)]
    ignore_not_found: bool,
}

/// A JSONPath of the command line.
pub fn path(text: &str) -> Result<Template, String> {
    Template::path(text).map_err(|error| error.to_string())
}

/// What was asked for, and where.
struct Asked {
    get: Get,
    /// Empty means all.
    namespace: String,
}

pub async fn run(to: &Connection, get: Get) -> Result<()> {
    let namespace = get.namespaces.of(to)?;
    let asked = Asked { get, namespace };
    let get = &asked.get;
    let first = get.what.first().map_or("", String::as_str);
    let named = get.what.len() > 1 || first.contains('/');
    if named {
        let selects = !get.selector.is_empty() || !get.field_selector.is_empty();
        if selects || get.namespaces.all_namespaces {
            bail!("names go neither with selectors nor with --all-namespaces");
        }
        let named = names::several(&get.what)?;
        return by_name(&to.client()?, &asked, &named).await;
    }
    let kinds = names::kinds_of(first)?;
    let client = to.client()?;
    if get.watch {
        let [kind] = kinds[..] else {
            bail!("--watch follows one kind, not \"{first}\"");
        };
        return watch(&client, &asked, kind, "").await;
    }
    by_kind(&client, &asked, &kinds).await
}

impl Asked {
    fn selection(&self, kind: &KindInfo) -> Selection {
        Selection {
            kind: kind.kind,
            namespace: names::namespace_of(kind, &self.namespace).to_owned(),
            labels: self.get.selector.clone(),
            fields: self.get.field_selector.clone(),
            ..Selection::default()
        }
    }

    /// Managed fields are for programs, so they are hidden unless the user asks for them.
    fn shown(&self, mut object: Object) -> Object {
        if !self.get.show_managed_fields
            && let Some(metadata) = object.metadata_mut()
        {
            metadata.managed_fields.clear();
        }
        object
    }

    fn columns(&self, kind: &KindInfo) -> Columns {
        let custom = match &self.get.output {
            Format::Custom(columns) => Some(columns.clone()),
            _ => None,
        };
        Columns {
            wide: self.get.output == Format::Wide,
            namespace: kind.namespaced && self.get.namespaces.all_namespaces && custom.is_none(),
            kind: false,
            labels: self.get.label_columns.clone(),
            all_labels: self.get.show_labels,
            custom,
        }
    }

    fn head(&self, table: Table) -> Table {
        match self.get.no_headers {
            true => table.headless(),
            false => table,
        }
    }

    fn sort(&self, objects: &mut Vec<Object>) -> Result<()> {
        match &self.get.sort_by {
            Some(path) => output::sort_by(objects, path),
            None => {
                sort(objects);
                Ok(())
            }
        }
    }
}

async fn by_kind(client: &Client, asked: &Asked, kinds: &[&KindInfo]) -> Result<()> {
    let mut all = Vec::new();
    for kind in kinds {
        let listing = client.list(&asked.selection(kind)).await?;
        if !listing.consistent {
            let plural = &kind.plural;
            eprintln!(
                "{plural} changed faster than they were listed: not all are shown as of one moment"
            );
        }
        let mut objects = listing.objects;
        if kinds.len() > 1 && asked.get.sort_by.is_some() && objects.is_empty() {
            continue;
        }
        asked.sort(&mut objects)?;
        all.push((*kind, objects));
    }
    let get = &asked.get;
    if !get.output.is_table() {
        let objects = all.into_iter().flat_map(|(_, objects)| objects);
        let objects: Vec<_> = objects.map(|object| asked.shown(object)).collect();
        return output::list(&objects, &get.output);
    }
    let now = output::now();
    let mut shown = 0;
    for (kind, objects) in all.iter().filter(|(_, objects)| !objects.is_empty()) {
        if shown > 0 {
            writeln!(io::stdout())?;
        }
        let columns = Columns {
            kind: kinds.len() > 1,
            ..asked.columns(kind)
        };
        let table = output::table(kind.kind, objects, &columns, now)?;
        asked.head(table).show()?;
        shown += 1;
    }
    if shown == 0 && !get.ignore_not_found {
        let namespaced = kinds.iter().all(|kind| kind.namespaced);
        let place = match namespaced && !get.namespaces.all_namespaces {
            true => format!(" in namespace {}", asked.namespace),
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

async fn by_name(client: &Client, asked: &Asked, named: &[Named<'_>]) -> Result<()> {
    if asked.get.watch {
        let [Named { kind, name }] = named else {
            bail!("--watch follows one object, or all of a kind");
        };
        return watch(client, asked, kind, name).await;
    }
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for one in named {
        let namespace = names::namespace_of(one.kind, &asked.namespace);
        match client.find(one.kind.kind, namespace, one.name).await? {
            Some(object) => found.push(object),
            None if asked.get.ignore_not_found => {}
            None => missing.push(names::not_found(client, *one, namespace).await),
        }
    }
    if asked.get.sort_by.is_some() {
        asked.sort(&mut found)?;
    }
    show_named(asked, named, found)?;
    explain::all(missing)
}

fn show_named(asked: &Asked, named: &[Named<'_>], found: Vec<Object>) -> Result<()> {
    let format = &asked.get.output;
    if !format.is_table() {
        let objects = found.into_iter().map(|object| asked.shown(object));
        let objects: Vec<_> = objects.collect();
        return match (&objects[..], named) {
            ([object], [_]) => output::object(object, format),
            ([], _) => Ok(()),
            (objects, _) => output::list(objects, format),
        };
    }
    // Neighbours of one kind share a table.
    let several = found.iter().any(|it| it.kind() != found[0].kind());
    let now = output::now();
    for (index, group) in found.chunk_by(|a, b| a.kind() == b.kind()).enumerate() {
        if index > 0 {
            writeln!(io::stdout())?;
        }
        let kind = group[0].kind();
        let columns = Columns {
            kind: several,
            ..kind
                .info()
                .map(|kind| asked.columns(kind))
                .unwrap_or_default()
        };
        let table = output::table(kind, group, &columns, now)?;
        asked.head(table).show()?;
    }
    Ok(())
}

/// Prints what is there, then a row or document for every change.
async fn watch(client: &Client, asked: &Asked, kind: &KindInfo, name: &str) -> Result<()> {
    let mut watcher = client.list_and_watch(Selection {
        name: name.to_owned(),
        ..asked.selection(kind)
    });
    let format = &asked.get.output;
    let columns = asked.columns(kind);
    let mut table = asked.head(Table::new(output::header(kind.kind, &columns)));
    let mut synced = false;
    loop {
        match watcher.next().await? {
            WatchEvent::Synced { .. } => synced = true,
            WatchEvent::Added(object) | WatchEvent::Modified(object) if format.is_table() => {
                table.push(output::row(&object, &columns, output::now())?);
            }
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                if *format == Format::Yaml {
                    writeln!(io::stdout(), "---")?;
                }
                output::object(&asked.shown(object), format)?;
                io::stdout().flush()?;
            }
            WatchEvent::Deleted(object) if format.is_table() => {
                table.push(output::row(&object, &columns, output::now())?);
            }
            WatchEvent::Deleted(_) => {}
        }
        // What is there at first lines up in one table.
        if synced && format.is_table() {
            table.show()?;
        }
    }
}
