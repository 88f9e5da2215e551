//! Making an image present for a pod: what is here is for those who may have it, and what is not is pulled with what the pod brings.

use tokio_util::sync::CancellationToken;

use super::{
    Image, Images, Present, PullPolicy, PullSecrets, RuntimeError, describe, endpoint,
    name::Name,
    pull::PullError,
    reason,
    registry::FetchError,
    ways::{self, Way},
};

/// What a pod asks for.
struct Wanted {
    name: Name,
    ways: Vec<Vec<Way>>,
    /// An image that is here, and that the pod may have when a registry gives it to the pod.
    withheld: Option<String>,
    /// What makes it likely that no registry gives it, in sentences.
    notes: Vec<String>,
}

impl Images {
    /// An image, if it is here and unpacked and a pod with these secrets may have it. Asks no registry and waits for no pull.
    pub async fn find(
        &self,
        image: &str,
        secrets: &PullSecrets,
    ) -> Result<Option<Image>, RuntimeError> {
        let name = Name::parse(image)?;
        let Some(present) = self.present(&name).await? else {
            return Ok(None);
        };
        let admitted = match &present.mark {
            None => true,
            Some(_) => {
                let (ways, _) = self.ways(&name, secrets).await?;
                present.admits(&ways, secrets)
            }
        };
        Ok(admitted.then(|| name.image(&present.digest)))
    }

    /// Makes an image present for a pod with these secrets. All who ask for the same with the same credentials at the same time share the work, which ends
    /// with the last of them. An image that is here and that another pod's secret brought is asked for at the registry first.
    pub async fn pull(
        &self,
        image: &str,
        policy: PullPolicy,
        secrets: &PullSecrets,
    ) -> Result<Image, RuntimeError> {
        let name = Name::parse(image)?;
        let (ways, fault) = self.ways(&name, secrets).await?;
        let mut withheld = None;
        if policy != PullPolicy::Always
            && let Some(present) = self.present(&name).await?
        {
            if present.admits(&ways, secrets) {
                return Ok(name.image(&present.digest));
            }
            withheld = Some(present.digest);
        }
        if policy == PullPolicy::Never {
            let why = match withheld {
                None => "is not present",
                Some(_) => {
                    "was pulled with a secret that this pod does not have, so it counts as not present"
                }
            };
            return Err(RuntimeError::passing(
                reason::ERR_IMAGE_NEVER_PULL,
                format!("Container image \"{image}\" {why} with pull policy of Never"),
            ));
        }
        let mut key = name.to_string();
        for part in [Some(ways::fingerprint(&ways)), withheld.clone()] {
            if let Some(part) = part.filter(|part| !part.is_empty()) {
                key = format!("{key}{BETWEEN}{part}");
            }
        }
        let unknown = secrets.unknown().map(|secret| {
            let name = &secret.name;
            format!("Secret {name:?} is not known on this node yet")
        });
        let wanted = Wanted {
            ways,
            withheld,
            notes: unknown.chain(fault).collect(),
            name,
        };
        let this = self.clone();
        let pulled = self
            .flights
            .run_while_wanted(&key, move |unwanted| async move {
                this.fetch(&wanted, &unwanted).await
            })
            .await;
        pulled.unwrap_or_else(|| {
            let message = format!("pulling {image} ended unexpectedly");
            Err(RuntimeError::passing(reason::ERR_IMAGE_PULL, message))
        })
    }

    /// The ways to an image, and why the node's own credentials are not up to date.
    async fn ways(
        &self,
        name: &Name,
        secrets: &PullSecrets,
    ) -> Result<(Vec<Vec<Way>>, Option<String>), RuntimeError> {
        let places = endpoint::endpoints(&name.host, &self.options.registries)
            .map_err(|error| RuntimeError::lasting(reason::ERR_IMAGE_PULL, error.to_string()))?;
        let (node, fault) = self.node.now().await;
        Ok((ways::ways(places, name, secrets, &node), fault))
    }

    async fn fetch(
        &self,
        wanted: &Wanted,
        unwanted: &CancellationToken,
    ) -> Result<Image, RuntimeError> {
        if let Some(digest) = &wanted.withheld {
            match self.fetch_as(wanted, digest, unwanted).await {
                // The registry has forgotten this image; the name may stand for another one.
                Err(failed) if failed.iter().all(is_missing) => {}
                Err(failed) => return Err(wanted.describe(&failed)),
                Ok(image) => return Ok(image),
            }
        }
        let fetched = self.fetch_as(wanted, wanted.name.reference(), unwanted);
        fetched.await.map_err(|failed| wanted.describe(&failed))
    }

    /// Pulls what a tag or digest stands for: at each place in turn, with each credential that it may be told.
    async fn fetch_as(
        &self,
        wanted: &Wanted,
        reference: &str,
        unwanted: &CancellationToken,
    ) -> Result<Image, Vec<PullError>> {
        let name = &wanted.name;
        let present = self.present(name).await;
        let present = present.ok().flatten().map(|present| present.digest);
        let mut errors: Vec<PullError> = Vec::new();
        for place in &wanted.ways {
            for way in place {
                let pull = self
                    .puller
                    .pull(name, reference, way, present.as_deref(), unwanted);
                match pull.await {
                    Ok(pulled) => {
                        if let Some(config) = pulled.config {
                            self.remember(&pulled.digest, config.into());
                        }
                        return Ok(name.image(&pulled.digest));
                    }
                    // Another registry would not help.
                    Err(error @ (PullError::Store(_) | PullError::Unwanted)) => {
                        return Err(vec![error]);
                    }
                    Err(error) => {
                        let goes_on = is_refused(&error) || is_missing(&error);
                        let told = error.to_string();
                        if errors.iter().all(|known| known.to_string() != told) {
                            errors.push(error);
                        }
                        // Other credentials help against nothing else.
                        if !goes_on {
                            break;
                        }
                    }
                }
            }
        }
        Err(errors)
    }
}

impl Present {
    fn admits(&self, ways: &[Vec<Way>], secrets: &PullSecrets) -> bool {
        let Some(mark) = &self.mark else {
            return true;
        };
        ways::tickets(ways).any(|ticket| mark.admits(ticket))
            || secrets.unknown().any(|secret| mark.admits_unknown(secret))
    }
}

impl Wanted {
    fn describe(&self, errors: &[PullError]) -> RuntimeError {
        let mut error = describe(&self.name.to_string(), errors);
        if self.withheld.is_some() {
            error.message = format!(
                "the image is on this machine, but was pulled with a secret that this pod does not have, so the registry is asked whether the pod may have it: {}",
                error.message
            );
        }
        if errors
            .iter()
            .any(|error| is_refused(error) || is_missing(error))
        {
            for note in &self.notes {
                error.message = format!("{}; {note}", error.message);
            }
        }
        error
    }
}

/// Between the parts of a flight's key. No image's name has it.
const BETWEEN: char = '\n';

/// Whether the flight of a key is one of this image.
pub(super) fn is_of(key: &str, name: &str) -> bool {
    key.split(BETWEEN).next() == Some(name)
}

fn is_refused(error: &PullError) -> bool {
    matches!(error, PullError::Fetch(FetchError::Unauthorized(_)))
}

/// Registries say that also of what somebody must not see.
fn is_missing(error: &PullError) -> bool {
    matches!(error, PullError::Fetch(FetchError::NotFound(_)))
}
