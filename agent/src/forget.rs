//! `barge-agent forget-pods`: a person ends pods that the cluster does not know. Control must not run meanwhile; at its next start it
//! ends them as if their deletion had been recorded.

use std::sync::Arc;

use crate::{
    config::Config,
    control,
    desired::{Desired, Touched},
    membership::{DataFolder, MembershipError},
    pods::unknown::{Unknown, unknown},
    runtime::{Runtime, RuntimeError, containerd::Containerd},
    session::{AssignmentFiles, SavedError},
};

/// Which pods to forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// None: they are listed.
    List,
    /// All that are unknown.
    All,
    /// Those with these uids.
    Uids(Vec<String>),
}

/// Why nothing was forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The data folder is in use, or belongs to no cluster.
    #[error(
        "{0} (forget-pods needs barge-agent to be stopped; containers go on running without it)"
    )]
    Membership(#[from] MembershipError),
    /// containerd does not answer.
    #[error(
        "cannot list containers: {0}; is containerd running? Its socket is given with --containerd"
    )]
    Runtime(#[from] RuntimeError),
    /// The list cannot be read or written.
    #[error(transparent)]
    Saved(#[from] SavedError),
    /// The folder cannot be used.
    #[error("cannot begin: {0}")]
    Io(#[from] std::io::Error),
    /// A uid of something else.
    #[error("no unknown pod has the uid \"{uid}\"; {known}")]
    NotUnknown {
        /// As it was given.
        uid: String,
        /// Which there are.
        known: String,
    },
}

/// Lists unknown pods or marks them to be ended. Answers what to print, a pod a line.
///
/// # Errors
/// See [`ForgetError`]; nothing is marked then.
pub async fn run(config: &Config, which: Which) -> Result<String, ForgetError> {
    let folder = DataFolder::take(&config.data_dir)?;
    let Some(identity) = folder.load()? else {
        return Err(MembershipError::NotJoined(folder.path().to_owned()).into());
    };
    let files = AssignmentFiles::open(folder.path())?;
    let desired = files.load(&identity.cluster_id);
    let options = control::runtime_options(config, folder.path())?;
    let inventory = Arc::new(Containerd::new(options)?).list().await?;
    let unknown = unknown(&desired, &inventory);
    if which == Which::List {
        return Ok(lines(&unknown));
    }
    let chosen = choose(unknown, which)?;
    files.save(
        &identity.cluster_id,
        &forget(&desired, &chosen),
        Touched {
            pods: true,
            ..Touched::default()
        },
    )?;
    Ok(lines(&chosen))
}

fn choose(unknown: Unknown, which: Which) -> Result<Unknown, ForgetError> {
    let uids = match which {
        Which::List => return Ok(Unknown::new()),
        Which::All => return Ok(unknown),
        Which::Uids(uids) => uids,
    };
    if let Some(uid) = uids.iter().find(|uid| !unknown.contains_key(*uid)) {
        let known = match unknown.is_empty() {
            true => "there are none".to_owned(),
            false => format!("there are:\n{}", lines(&unknown)),
        };
        let uid = uid.clone();
        return Err(ForgetError::NotUnknown { uid, known });
    }
    let chosen = unknown.into_iter().filter(|(uid, _)| uids.contains(uid));
    Ok(chosen.collect())
}

/// The assignment with these pods deleted.
fn forget(desired: &Desired, chosen: &Unknown) -> Desired {
    let mut next = desired.clone();
    for uid in chosen.keys() {
        next.pods.remove(uid);
        next.unknown.remove(uid);
        next.deleted.insert(uid.clone());
    }
    next
}

fn lines(pods: &Unknown) -> String {
    let lines = pods.iter().map(|(uid, name)| format!("{uid}  {name}\n"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use barge_proto::v1::{ObjectMeta, Pod};

    use super::*;
    use crate::runtime::{Container, ContainerState, Inventory};

    fn pod(uid: &str) -> (String, Arc<Pod>) {
        let metadata = Some(ObjectMeta {
            uid: uid.into(),
            name: format!("name-of-{uid}"),
            namespace: "default".into(),
            ..Default::default()
        });
        let pod = Pod {
            metadata,
            ..Default::default()
        };
        (uid.to_owned(), Arc::new(pod))
    }

    fn container(uid: &str, state: ContainerState) -> Container {
        Container {
            id: format!("{uid}-web-0"),
            pod_uid: uid.into(),
            name: "web".into(),
            attempt: 0,
            image_id: String::new(),
            image: String::new(),
            state,
        }
    }

    /// One that is assigned, one that the last full set lacked, one that only the runtime knows, and one that is half made.
    fn machine() -> (Desired, Inventory) {
        let desired = Desired {
            pods: [pod("assigned"), pod("unlisted")].into(),
            unknown: ["unlisted".to_owned()].into(),
            ..Default::default()
        };
        let lost = |uid| container(uid, ContainerState::Lost);
        let inventory = Inventory {
            sandboxes: Vec::new(),
            containers: vec![
                lost("assigned"),
                lost("stranger"),
                container("half", ContainerState::Created),
            ],
        };
        (desired, inventory)
    }

    #[test]
    fn only_unknown_pods_are_forgotten() {
        let (desired, inventory) = machine();
        let all = unknown(&desired, &inventory);
        assert_eq!(Vec::from_iter(all.keys()), ["stranger", "unlisted"]);
        let refused = choose(all.clone(), Which::Uids(vec!["assigned".into()])).unwrap_err();
        let refused = refused.to_string();
        assert!(
            refused.contains("\"assigned\"") && refused.contains("unlisted"),
            "{refused}"
        );
        let one = choose(all.clone(), Which::Uids(vec!["stranger".into()])).unwrap();
        let next = forget(&desired, &one);
        assert_eq!(Vec::from_iter(&next.deleted), ["stranger"]);
        assert_eq!(next.pods, desired.pods);
        let next = forget(&desired, &choose(all, Which::All).unwrap());
        assert_eq!(Vec::from_iter(next.pods.keys()), ["assigned"]);
        assert_eq!(next.deleted.len(), 2);
        assert!(next.unknown.is_empty());
        assert!(unknown(&next, &inventory).is_empty());
    }
}
