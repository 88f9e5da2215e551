//! What a token says: Kubernetes' claims, and the checks that need nothing but the token and a clock.

use barge_state::service_account_user;
use serde::{Deserialize, Serialize};

use crate::pki::jws::NotSigned;

/// Seconds by which the clocks of managers may differ.
const LEEWAY: i64 = 60;

/// The claims of a token, in the order of the alphabet. Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom it is.
    pub aud: Vec<String>,
    /// When it ends.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// Names the token.
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
    /// Not good before.
    pub nbf: i64,
    /// "system:serviceaccount:NAMESPACE:NAME"
    pub sub: String,
}

/// What a token is bound to: it is good as long as all of it is there, but for the node, which is only said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Of account and pod.
    pub namespace: String,
    /// Where the pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Named>,
    /// The pod that uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Named>,
    /// Whose it is.
    pub serviceaccount: Named,
    /// When its user should have got another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// An object and its incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Why a token is refused without a look at the state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No key of the cluster signed it.
    #[error("the token is not valid: {0}")]
    NotSigned(#[from] NotSigned),
    /// A key of the cluster signed something else.
    #[error("the token is not valid: {0}")]
    Claims(String),
    /// Its time is over.
    #[error(
        "the token has expired, {0} s ago: whoever uses it must read it anew from its file before that"
    )]
    Expired(i64),
    /// Its time has not come.
    #[error("the token is not valid yet, for {0} s: the clocks of the managers differ")]
    NotYet(i64),
    /// It is for somebody else.
    #[error("the token is for {0}, not for {1}")]
    Audience(String, String),
}

impl Claims {
    /// Reads claims, and checks that they are for one of `audiences` and that `now` is within their time. Tells which of the audiences those are.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check(
        json: &[u8],
        issuer: &str,
        audiences: &[String],
        now: i64,
    ) -> Result<(Self, Vec<String>), Refused> {
        let claims: Self = serde_json::from_slice(json).map_err(|error| {
            Refused::Claims(format!(
                "its claims are not those of a service account's token ({error})"
            ))
        })?;
        if claims.iss != issuer {
            let other = format!("it was made by {}, this cluster is {issuer}", claims.iss);
            return Err(Refused::Claims(other));
        }
        let account = &claims.bound.serviceaccount;
        if claims.sub != service_account_user(&claims.bound.namespace, &account.name) {
            let what = "its subject is not the account that it names".to_owned();
            return Err(Refused::Claims(what));
        }
        if now >= claims.exp.saturating_add(LEEWAY) {
            return Err(Refused::Expired(now.saturating_sub(claims.exp)));
        }
        if now < claims.nbf.saturating_sub(LEEWAY) {
            return Err(Refused::NotYet(claims.nbf.saturating_sub(now)));
        }
        let mut both = audiences.to_vec();
        both.retain(|one| claims.aud.contains(one));
        match both.is_empty() {
            true => Err(Refused::Audience(
                claims.aud.join(", "),
                audiences.join(", "),
            )),
            false => Ok((claims, both)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn claims() -> Claims {
        let named = |name: &str| Named {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
        };
        Claims {
            aud: vec!["a".to_owned(), "b".to_owned()],
            exp: 4600,
            iat: 1000,
            iss: "https://x".to_owned(),
            jti: "1".to_owned(),
            bound: Bound {
                namespace: "shop".to_owned(),
                node: Some(named("n")),
                pod: Some(named("p")),
                serviceaccount: named("ci"),
                warnafter: Some(3880),
            },
            nbf: 1000,
            sub: "system:serviceaccount:shop:ci".to_owned(),
        }
    }

    fn check(claims: &Claims, audiences: &[&str], now: i64) -> Result<Vec<String>, Refused> {
        let json = serde_json::to_vec(claims).unwrap();
        let audiences: Vec<_> = audiences.iter().map(|it| (*it).to_owned()).collect();
        Claims::check(&json, "https://x", &audiences, now).map(|(read, both)| {
            assert_eq!(read, *claims);
            both
        })
    }

    #[test]
    fn they_are_kubernetes() {
        let json = serde_json::to_value(claims()).unwrap();
        let expected = serde_json::json!({
            "aud": ["a", "b"], "exp": 4600, "iat": 1000, "iss": "https://x", "jti": "1",
            "kubernetes.io": {
                "namespace": "shop",
                "node": {"name": "n", "uid": "uid-n"},
                "pod": {"name": "p", "uid": "uid-p"},
                "serviceaccount": {"name": "ci", "uid": "uid-ci"},
                "warnafter": 3880,
            },
            "nbf": 1000, "sub": "system:serviceaccount:shop:ci",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn time_audience_issuer_and_subject_are_checked() {
        let it = claims();
        assert_eq!(check(&it, &["b", "c"], 2000).unwrap(), ["b"]);
        assert_eq!(check(&it, &["a"], 4600 + LEEWAY - 1).unwrap(), ["a"]);
        let late = check(&it, &["a"], 4600 + LEEWAY);
        assert_eq!(late, Err(Refused::Expired(LEEWAY)));
        let early = check(&it, &["a"], 1000 - LEEWAY - 1);
        assert_eq!(early, Err(Refused::NotYet(LEEWAY + 1)));
        assert!(check(&it, &["a"], 1000 - LEEWAY).is_ok());
        assert!(matches!(
            check(&it, &["c"], 2000),
            Err(Refused::Audience(..))
        ));
        assert!(matches!(check(&it, &[], 2000), Err(Refused::Audience(..))));
        for wrong in [
            Claims {
                iss: "https://y".to_owned(),
                ..claims()
            },
            Claims {
                sub: "system:serviceaccount:shop:root".to_owned(),
                ..claims()
            },
        ] {
            assert!(matches!(
                check(&wrong, &["a"], 2000),
                Err(Refused::Claims(_))
            ));
        }
        assert!(Claims::check(b"{}", "https://x", &[], 0).is_err());
    }
}
