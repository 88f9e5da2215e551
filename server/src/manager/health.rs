//! Health, for load balancers and supervisors: serving when a leader is known and this manager has a state.

use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::store::Store;

/// The overall state of a server.
const OVERALL: &str = "";

/// Reports until `stop`, and at the end that nothing is served any more.
pub async fn run(store: Store, reporter: HealthReporter, stop: CancellationToken) {
    let mut leadership = store.leadership();
    loop {
        let leads = leadership.borrow_and_update().leader.is_some();
        let status = match leads && store.read(|state| state.cluster().is_some()) {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        reporter.set_service_status(OVERALL, status).await;
        let changed = tokio::select! {
            changed = leadership.changed() => changed.is_ok(),
            // The first state may arrive after the leader is known.
            applied = store.wait_applied(1), if status != ServingStatus::Serving && leads => applied.is_ok(),
            () = stop.cancelled() => false,
        };
        if !changed {
            break;
        }
    }
    reporter
        .set_service_status(OVERALL, ServingStatus::NotServing)
        .await;
}
