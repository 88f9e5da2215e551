//! The principal: the identity in whose name a request is made.

use std::{fmt, str::FromStr};

use barge_client::identity::{role_from_word, role_word};
use barge_proto::v1::Role;
use tonic::{Request, Status};

use super::Access;
use crate::{
    net::{ANYONE, Peer},
    runtime::clock,
    security::audit::Concerns,
};

/// The metadata by which a manager that forwards a call says for whom.
pub const PRINCIPAL_METADATA: &str = "barge-principal";

/// Two uids and what stands around them: what is known of who shows a token.
const LONGEST: usize = 128;

/// A party of the cluster: "admin/<uid>", "agent/<uid>" or "manager/<uid>".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// What it is.
    pub role: Role,
    /// Its uid.
    pub uid: String,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", role_word(self.role), self.uid)
    }
}

impl FromStr for Principal {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (role, uid) = text.split_once('/').ok_or(())?;
        let role = role_from_word(role).ok_or(())?;
        if uid.is_empty() || uid.len() > LONGEST || !uid.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(());
        }
        Ok(Self {
            role,
            uid: uid.to_owned(),
        })
    }
}

/// The caller of a request that passed the authorisation layer; an extension of the request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// For whom the request is; absent without a certificate.
    pub principal: Option<Principal>,
    /// What they may.
    pub access: Access,
    /// True when a manager forwarded it: it must not travel further.
    pub forwarded: bool,
    /// When the token ends that the caller showed, in seconds since the epoch; absent when it showed none.
    pub until: Option<i64>,
    /// The other end of the connection.
    pub peer: Peer,
    /// What the request concerns, for the audit log.
    pub concerns: Concerns,
}

impl Caller {
    /// The caller of a request.
    ///
    /// # Errors
    /// INTERNAL when the request did not pass the layer, which would be a mistake in how the server is put together.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Status::internal("the request was not authorised"))
    }

    /// # Errors
    /// UNAUTHENTICATED when the token that the caller showed has ended meanwhile.
    pub fn check_time(&self) -> Result<(), Status> {
        match self.until {
            Some(until) if until <= clock::now().seconds => Err(Status::unauthenticated(
                "the token has expired: read it anew from its file",
            )),
            _ => Ok(()),
        }
    }

    /// For transactions and for forwarding: the principal, or "anyone".
    #[must_use]
    pub fn name(&self) -> String {
        match &self.principal {
            Some(principal) => principal.to_string(),
            None => ANYONE.to_owned(),
        }
    }

    /// The uid of an agent's node.
    ///
    /// # Errors
    /// PERMISSION_DENIED for anybody else.
    pub fn node_uid(&self) -> Result<&str, Status> {
        match &self.principal {
            Some(Principal {
                role: Role::Agent,
                uid,
            }) => Ok(uid),
            _ => Err(Status::permission_denied("only an agent may call this")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let principal = Principal {
            role: Role::Admin,
            uid: "8f0e".into(),
        };
        assert_eq!(principal.to_string(), "admin/8f0e");
        assert_eq!("admin/8f0e".parse(), Ok(principal));
    }

    #[test]
    fn refuses_what_is_no_principal() {
        for bad in [
            "",
            "admin",
            "admin/",
            "root/1",
            "anyone/1",
            "admin/a b",
            "admin/\n",
        ] {
            assert_eq!(bad.parse::<Principal>(), Err(()), "{bad:?}");
        }
    }
}
