//! `/debug/tasks`: what the process does at this moment.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use mainstay_core::Standing;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::Shared;

pub(crate) async fn show(State(admin): Shared) -> Response {
    let runtime = Handle::current().metrics();
    let components: Vec<_> = admin.components.components().iter().map(component).collect();
    let tasks = json!({
        "runtime": {
            "workers": runtime.num_workers(),
            "alive_tasks": runtime.num_alive_tasks(),
            "global_queue_depth": runtime.global_queue_depth(),
        },
        "components": components,
        "in_hand": admin.in_hand.show(),
    });
    // For eyes first: whoever looks here looks for what hangs.
    ([(header::CONTENT_TYPE, "application/json")], format!("{tasks:#}\n")).into_response()
}

fn component(standing: &Standing) -> Value {
    let seconds = standing.since.elapsed().as_secs_f64();
    json!({ "name": standing.component, "stage": standing.stage, "seconds": seconds })
}
