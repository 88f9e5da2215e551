//! Applying objects: all of them or none.

use barge_proto::{
    kinds::{KindRef, Registry},
    limits::OBJECTS as MAX_OBJECTS,
    v1::{ApplyOutcome, ApplyRequest, ApplyResponse, ApplyResult, Kind, Object, RequestId},
};
use barge_state::{Parts, State};

use super::{
    commit::{Committed, after, commit, rehearse, request_record},
    gate,
    plan::{self, Planned, Stamp},
    vault::{Vault, without_values},
};
use crate::{
    calls::names, error::ApiError, net::reserved::ReservedPorts, security::auth::Access,
    storage::lock::By, store::Store,
};

/// What the manager that plans adds to a request.
#[derive(Debug, Clone, Copy)]
pub struct Edge<'a> {
    /// For the values of Secrets.
    pub vault: &'a Vault,
    /// Ports of the nodes that it keeps from Services.
    pub reserved: &'a ReservedPorts,
    /// The kinds that there are.
    pub kinds: &'a Registry,
}

/// How objects meet what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What they say is merged into it.
    Merged,
    /// They take its place, for a program that knows the fields up to this feature level.
    Replacing(u32),
}

/// Applies at the leader. `id` was taken out of the request.
///
/// # Errors
/// DENIED for what bindings do not allow; INVALID with every field that breaks a rule; FIELD_CONFLICT with every field that others
/// own; CONFLICT, NOT_FOUND and EXISTS by the state; what the store says.
pub async fn apply(
    store: &Store,
    edge: Edge<'_>,
    by: String,
    access: &Access,
    (request, way): (&ApplyRequest, Way),
    id: Option<&RequestId>,
) -> Result<ApplyResponse, ApiError> {
    let Edge {
        vault,
        reserved,
        kinds,
    } = edge;
    if request.objects.len() > MAX_OBJECTS {
        return Err(ApiError::invalid(
            "objects",
            format!(
                "{} objects, at most {MAX_OBJECTS} are possible at once: send them in several requests",
                request.objects.len()
            ),
        ));
    }
    let (dry_run, omit_objects) = (request.dry_run, request.omit_objects);
    let record = match dry_run {
        true => None,
        false => request_record(store, id, || vault.digest(request))?,
    };
    let wanted = plan::prepare(
        kinds,
        &request.objects,
        &request.field_manager,
        request.force,
    )?;
    let wanted = match way {
        Way::Merged => wanted,
        Way::Replacing(level) => {
            versioned(&request.objects)?;
            wanted.replacing(level)
        }
    };
    let stamp = Stamp::now(reserved, kinds);
    let shown = dry_run || !omit_objects || !access.is_everything();
    let plan = |store: &Store| {
        let planned = plan::by_store(store, vault, &wanted, &stamp, shown)?;
        if !access.is_everything() {
            store.read(|state| gate::check_planned(access, state, &planned.1))?;
        }
        Ok(planned)
    };
    if dry_run {
        let (planned, changes) = Box::pin(rehearse(store, by, plan)).await?;
        let warnings = warnings(&planned);
        let results = planned.into_iter().map(|planned| ApplyResult {
            outcome: planned.outcome.into(),
            object: planned
                .object
                .filter(|_| !omit_objects)
                .map(|it| after(store, &changes, it)),
        });
        let results = results.collect();
        return opened(vault, results, store.read(State::revision), warnings);
    }
    let committed = commit(store, by, record, plan).await?;
    let warnings = match &committed {
        Committed::Applied(planned, _) | Committed::Nothing(planned) => warnings(planned),
        Committed::Repeated(_) => Vec::new(),
    };
    if omit_objects && let Committed::Applied(planned, outcome) = &committed {
        let results = planned.iter().map(|planned| ApplyResult {
            object: None,
            outcome: planned.outcome.into(),
        });
        return Ok(ApplyResponse {
            results: results.collect(),
            revision: outcome.revision,
            warnings,
        });
    }
    let (mut results, revision) = match committed {
        Committed::Applied(planned, outcome) => (results(store, planned), outcome.revision),
        Committed::Nothing(planned) => {
            let revision = store.read(State::revision);
            (results(store, planned), revision)
        }
        Committed::Repeated(outcome) => {
            let objects: Vec<_> = wanted.each().collect();
            (repeated(store, &objects), outcome.revision)
        }
    };
    if omit_objects {
        results.iter_mut().for_each(|result| result.object = None);
    }
    opened(vault, results, revision, warnings)
}

/// What takes the place of something says of what: nothing that was written meanwhile is lost.
fn versioned(objects: &[Object]) -> Result<(), ApiError> {
    if objects.is_empty() {
        return Err(ApiError::invalid("object", "is missing"));
    }
    let mut objects = objects.iter();
    match objects.find(|it| it.metadata().resource_version.is_empty()) {
        Some(object) => Err(ApiError::invalid(
            format!("{object}: metadata.resourceVersion"),
            "is needed to put an object in the place of another: read it first, and send it with the version that was read",
        )),
        None => Ok(()),
    }
}

fn warnings(planned: &[Planned]) -> Vec<String> {
    let all = planned.iter().flat_map(|it| &it.warnings);
    all.cloned().collect()
}

/// The answer, as it is shown.
fn opened(
    vault: &Vault,
    mut results: Vec<ApplyResult>,
    revision: u64,
    warnings: Vec<String>,
) -> Result<ApplyResponse, ApiError> {
    for result in &mut results {
        result.object = result.object.take().map(|it| vault.open(it)).transpose()?;
    }
    Ok(ApplyResponse {
        results,
        revision,
        warnings,
    })
}

/// The objects of these kinds and names as they are now, put together outside of the state's lock.
fn stored<'a>(
    store: &Store,
    objects: impl Iterator<Item = (&'a KindRef, &'a str, &'a str)>,
) -> Vec<Option<Object>> {
    let parts: Vec<_> = store.read_by(By::Plan, |state| {
        let find = |(info, namespace, name): (&KindRef, &str, &str)| {
            state.object_parts(info.kind, namespace, &names::record(info, name))
        };
        objects.map(find).collect()
    });
    let object = |parts: Option<Parts>| parts.as_ref().and_then(Parts::object);
    parts.into_iter().map(object).collect()
}

fn results(store: &Store, planned: Vec<Planned>) -> Vec<ApplyResult> {
    let named = planned.iter();
    let stored = stored(
        store,
        named.map(|it| (&it.info, it.namespace.as_str(), it.name.as_str())),
    );
    let result = |(planned, stored): (Planned, Option<Object>)| ApplyResult {
        // Somebody may have deleted it already.
        object: stored.or(planned.object),
        outcome: planned.outcome.into(),
    };
    planned.into_iter().zip(stored).map(result).collect()
}

/// The answer to a request that was applied before: which objects it created is told by their generation.
fn repeated(store: &Store, objects: &[(&Object, &KindRef)]) -> Vec<ApplyResult> {
    let named = objects.iter();
    let stored = stored(
        store,
        named.map(|(it, info)| (*info, it.namespace(), it.name())),
    );
    let result = |((object, _), stored): (&(&Object, &KindRef), Option<Object>)| {
        let created = stored
            .as_ref()
            .is_some_and(|stored| stored.metadata().generation <= 1);
        let outcome = match created && object.kind() != Kind::Node {
            true => ApplyOutcome::Created,
            false => ApplyOutcome::Configured,
        };
        ApplyResult {
            // What was sent is open, unlike what is kept.
            object: Some(stored.unwrap_or_else(|| without_values((*object).clone()))),
            outcome: outcome.into(),
        }
    };
    objects.iter().zip(stored).map(result).collect()
}
