//! The credentials of people and programs.

use super::{Client, attempt::Repeat};
use crate::{
    config::Context,
    error::ClientError,
    identity::pem,
    renew::Request,
    v1::{
        CreateCredentialRequest, CreateCredentialResponse, CredentialInfo, ListCredentialsRequest,
        RevokeCredentialRequest, credentials_client::CredentialsClient,
    },
};

/// A credential that is wanted.
#[derive(Debug, Clone, Default)]
pub struct NewCredential {
    /// A DNS-1123 name, unique among the credentials.
    pub name: String,
    /// A bearer token instead of a certificate.
    pub bearer: bool,
    /// Seconds until it ends; 0 means never for certificates and 365 days for bearer tokens.
    pub ttl_seconds: u64,
    /// For people.
    pub description: String,
    /// What it is a member of. Without any it may do what bindings for its name say; `system:masters` may do everything.
    pub groups: Vec<String>,
    /// For a service account instead of a person: `NAMESPACE/NAME`.
    pub service_account: String,
}

impl Client {
    /// Makes a credential and answers the context to use it with. The private key is made here and never leaves. Not
    /// repeated once it was sent: the second would find the name taken.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_credential(
        &self,
        wanted: &NewCredential,
    ) -> Result<(Context, CredentialInfo), ClientError> {
        let request = match wanted.bearer {
            true => None,
            false => Some(Request::new().map_err(|_| ClientError::Answer("a private key"))?),
        };
        let message = CreateCredentialRequest {
            name: wanted.name.clone(),
            csr: request.as_ref().map(|r| r.csr.clone()).unwrap_or_default(),
            ttl_seconds: wanted.ttl_seconds,
            description: wanted.description.clone(),
            groups: wanted.groups.clone(),
            service_account: wanted.service_account.clone(),
        };
        let answer = self
            .call(Repeat::Unsafe, |channel| {
                let message = message.clone();
                async move {
                    CredentialsClient::new(channel)
                        .create_credential(message)
                        .await
                }
            })
            .await?;
        let (context, info) = context(request.as_ref(), answer)?;
        if info.user.is_empty() && wanted.groups != ["system:masters"] {
            // A manager of a version in which every credential was an administrator's.
            self.revoke_credential(&info.name).await?;
            return Err(ClientError::Answer("whose the credential would be"));
        }
        Ok((context, info))
    }

    /// The credentials there are, expired ones too, without their secrets.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn credentials(&self) -> Result<Vec<CredentialInfo>, ClientError> {
        let response = self
            .call(Repeat::Safe, |channel| async move {
                CredentialsClient::new(channel)
                    .list_credentials(ListCredentialsRequest {})
                    .await
            })
            .await?;
        Ok(response.credentials)
    }

    /// Makes a credential useless.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn revoke_credential(&self, name: &str) -> Result<(), ClientError> {
        let request = RevokeCredentialRequest {
            name: name.to_owned(),
        };
        self.call(Repeat::Safe, |channel| {
            let request = request.clone();
            async move {
                CredentialsClient::new(channel)
                    .revoke_credential(request)
                    .await
            }
        })
        .await
        .map(|_| ())
    }
}

fn context(
    request: Option<&Request>,
    answer: CreateCredentialResponse,
) -> Result<(Context, CredentialInfo), ClientError> {
    let info = answer.info.ok_or(ClientError::Answer("what it made"))?;
    let pem = |certificates: Vec<Vec<u8>>| {
        let certificates: Vec<_> = certificates.into_iter().map(Into::into).collect();
        pem::encode_certificates(&certificates)
    };
    let context = Context {
        name: info.name.clone(),
        cluster_id: answer.cluster_id,
        managers: answer.managers,
        only_these_managers: false,
        namespace: String::new(),
        roots: pem(answer.roots),
        certificate: pem(answer.certificate_chain),
        key: request.map(Request::key_pem).unwrap_or_default(),
        token: answer.bearer_token,
    };
    // Proves that it is of use before anybody counts on it.
    context.credential()?;
    Ok((context, info))
}
