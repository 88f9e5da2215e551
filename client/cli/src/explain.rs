//! Turns errors into text for people: the fault and the way out.

use std::io::{self, Write};

use barge_client::ClientError;

/// Whether the error is a closed standard output (`barge get pods | head -1`).
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Prints an error and what to do about it, to standard error.
pub fn print(error: &anyhow::Error) {
    let mut text = format!("error: {error:#}\n");
    if let Some(client) = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<ClientError>())
    {
        for violation in violations(client) {
            text.push_str(&format!("  {violation}\n"));
        }
        if let Some(hint) = hint(client) {
            text.push_str(&format!("hint: {hint}\n"));
        }
    }
    // Nobody is left to tell if this fails.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// All errors of a command on several objects: the last one is its own, those before are printed.
///
/// # Errors
/// There are any.
pub fn all(mut failures: Vec<anyhow::Error>) -> anyhow::Result<()> {
    match failures.pop() {
        None => Ok(()),
        Some(last) => {
            failures.iter().for_each(print);
            Err(last)
        }
    }
}

/// The fields that break rules, where the message does not name them all already.
fn violations(error: &ClientError) -> Vec<String> {
    let ClientError::Refused(refusal) = error else {
        return Vec::new();
    };
    refusal
        .violations
        .iter()
        .filter(|violation| !refusal.message.contains(&violation.description))
        .map(|violation| format!("{}: {}", violation.field, violation.description))
        .collect()
}

fn hint(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Unreachable { tried } => Some(
            if tried
                .iter()
                .any(|attempt| attempt.cause.contains("another cluster"))
            {
                "the credential is for another cluster: choose its file with --config or BARGE_CONFIG"
            } else {
                "are the managers running (`barge dev up` starts a cluster on this machine), and is the credential \
                 (--config, BARGE_CONFIG) the one of the cluster you mean?"
            },
        ),
        ClientError::Unavailable { .. } => Some(
            "the managers answer but cannot write: more than half of them have to run and reach each other; \
             `barge cluster status` shows who does",
        ),
        ClientError::NotValid(_) => Some(
            "correct this machine's clock if it is wrong; otherwise another administrator makes a credential (barge credential \
             create), or root on a manager does (barge-server credential)",
        ),
        ClientError::Refused(refusal) if refusal.reason == "DENIED" => Some(
            "`barge auth can-i --list` shows what this credential may; who administers the cluster gives more with a \
             RoleBinding or ClusterRoleBinding",
        ),
        ClientError::Refused(refusal) if error.is_denied() && refusal.reason != "TOKEN" => Some(
            "this credential may not do that: use an admin's (admin.toml in the data folder of the manager that was \
             bootstrapped) with --config or BARGE_CONFIG",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barge_client::error::Attempt;

    #[test]
    fn every_failure_has_a_way_out() {
        let tried = |cause: &str| {
            vec![Attempt {
                manager: "127.0.0.1:1".into(),
                cause: cause.into(),
            }]
        };
        let refused = ClientError::Unreachable {
            tried: tried("Connection refused"),
        };
        assert!(
            refused
                .to_string()
                .contains("127.0.0.1:1: Connection refused")
        );
        assert!(hint(&refused).is_some_and(|hint| hint.contains("running")));
        let other = ClientError::Unreachable {
            tried: tried("it belongs to another cluster"),
        };
        assert!(hint(&other).is_some_and(|hint| hint.contains("for another cluster")));
        let quorum = ClientError::Unavailable {
            tried: tried("no leader"),
        };
        assert!(hint(&quorum).is_some_and(|hint| hint.contains("more than half")));
    }

    #[test]
    fn a_closed_pipe_is_found_below_contexts() {
        let error =
            anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("print");
        assert!(is_broken_pipe(&error));
        assert!(!is_broken_pipe(&anyhow::anyhow!("other")));
    }
}
