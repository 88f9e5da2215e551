//! The validity of a certificate, and the time at which its holder renews it.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest, Sha256};
use x509_parser::parse_x509_certificate;

use super::SubjectError;

/// The life of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub from: SystemTime,
    /// The last moment.
    pub until: SystemTime,
    /// When to renew, in this certificate's own case; see [`Validity::renewal`].
    renewal: SystemTime,
}

impl Validity {
    /// Reads the validity of a certificate (DER).
    ///
    /// # Errors
    /// It is not a certificate.
    pub fn of(certificate: &[u8]) -> Result<Self, SubjectError> {
        let (_, parsed) =
            parse_x509_certificate(certificate).map_err(|_| SubjectError::NotACertificate)?;
        let time = |seconds: i64| {
            UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        };
        let from = time(parsed.validity().not_before.timestamp());
        let until = time(parsed.validity().not_after.timestamp());
        let life = until.duration_since(from).unwrap_or_default();
        Ok(Self {
            from,
            until,
            renewal: from + life.mul_f64(point(certificate)),
        })
    }

    /// When to ask for the next certificate: a point of the second half of life that differs from one certificate to the
    /// next, so that a thousand machines that joined together do not renew together, and that is the same after a
    /// restart. The last fifth is left for trying again.
    #[must_use]
    pub fn renewal(&self) -> SystemTime {
        self.renewal
    }

    /// Whether it is time for another certificate: the point has come, or by this clock the certificate is of no use.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        now >= self.renewal || now < self.from
    }

    /// Whether the certificate is valid by this clock.
    ///
    /// # Errors
    /// It is not; the error says from when to when it is, and what the clock says.
    pub fn check(&self, now: SystemTime) -> Result<(), NotValid> {
        match now >= self.from && now <= self.until {
            true => Ok(()),
            false => Err(NotValid {
                from: self.from,
                until: self.until,
                now,
            }),
        }
    }
}

/// Between 0.5 and 0.8, drawn from the certificate itself: its serial number and signature are random.
fn point(certificate: &[u8]) -> f64 {
    let digest = Sha256::digest(certificate);
    let drawn = digest
        .iter()
        .take(4)
        .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    0.5 + 0.3 * f64::from(drawn) / f64::from(u32::MAX)
}

/// A certificate that a clock does not fall into: it has expired, or the clock is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotValid {
    /// The certificate's first moment.
    pub from: SystemTime,
    /// Its last moment.
    pub until: SystemTime,
    /// What the clock says.
    pub now: SystemTime,
}

impl fmt::Display for NotValid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "certificate is valid from {} to {}, this machine's clock says {}",
            text(self.from),
            text(self.until),
            text(self.now)
        )
    }
}

impl std::error::Error for NotValid {}

/// RFC 3339, in UTC, to the second.
fn text(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(
            || format!("{seconds} s after 1970"),
            |time| time.to_string(),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::tests::identity, v1::Role};

    #[test]
    fn renewal_is_in_the_second_half_and_differs() {
        let mut points = Vec::new();
        for _ in 0..8 {
            let validity = identity(Role::Agent).validity().unwrap();
            let life = validity.until.duration_since(validity.from).unwrap();
            let at = validity.renewal().duration_since(validity.from).unwrap();
            assert!(at >= life / 2 && at <= life.mul_f64(0.8), "{at:?}");
            assert!(!validity.is_due(validity.from + life / 2 - Duration::from_secs(1)));
            assert!(validity.is_due(validity.renewal()));
            points.push(at);
        }
        points.dedup();
        assert!(points.len() > 1, "all at the same point");
    }

    #[test]
    fn a_wrong_clock_is_told_with_both_times() {
        let validity = identity(Role::Agent).validity().unwrap();
        let early = validity.from - Duration::from_secs(1);
        assert!(validity.is_due(early));
        let error = validity.check(UNIX_EPOCH).unwrap_err().to_string();
        assert!(
            error.contains("valid from 1975-01-01T00:00:00Z to 4096-01-01T00:00:00Z")
                && error.ends_with("this machine's clock says 1970-01-01T00:00:00Z"),
            "{error}"
        );
        assert_eq!(validity.check(SystemTime::now()), Ok(()));
    }
}
