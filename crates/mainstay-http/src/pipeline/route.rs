//! What the pipeline knows about a route: its template, its options and its metric handles, found once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::Method;
use mainstay_telemetry::prometheus_client::metrics::gauge::Gauge;

use super::metrics::{Calls, Durations, RequestMetrics};
use crate::routes::OptionsTable;
use crate::routing::RouteOptions;

/// The known methods by the semantic conventions; anything else is `_OTHER`, so that a client can't invent labels.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

/// All routes that have been asked for.
pub(super) struct RouteStates {
    options: OptionsTable,
    states: Mutex<HashMap<Box<str>, Arc<RouteState>>>,
}

/// One route; the empty template stands for everything that matches none.
pub(super) struct RouteState {
    template: Arc<str>,
    options: HashMap<Method, RouteOptions>,
    methods: [OnceLock<Arc<MethodState>>; METHODS.len() + 1],
}

/// One method of one route.
pub(super) struct MethodState {
    pub(super) name: &'static str,
    /// With the route, as its spans are called.
    pub(super) span_name: Arc<str>,
    options: RouteOptions,
    pub(super) active: Gauge,
    pub(super) durations: Durations,
    pub(super) calls: Calls,
    pub(super) deadline_left: mainstay_telemetry::Durations,
}

impl RouteStates {
    pub(super) fn new(options: OptionsTable) -> Self {
        Self { options, states: Mutex::default() }
    }

    /// Takes a lock; a service asks once and keeps the answer.
    pub(super) fn get(&self, template: &str) -> Arc<RouteState> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = states.get(template) {
            return known.clone();
        }
        let options = self.options.get(template).cloned().unwrap_or_default();
        let state = Arc::new(RouteState { template: template.into(), options, methods: Default::default() });
        states.insert(template.into(), state.clone());
        state
    }
}

impl RouteState {
    pub(super) fn template(&self) -> &str {
        &self.template
    }

    /// The same to keep.
    pub(super) fn name(&self) -> Arc<str> {
        self.template.clone()
    }

    pub(super) fn method(&self, method: &Method, metrics: &RequestMetrics) -> Arc<MethodState> {
        let index = METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len());
        let make = || {
            let name = METHODS.get(index).copied().unwrap_or("_OTHER");
            // A GET handler answers HEAD too, under the same options.
            let fallback = if method == Method::HEAD { self.options.get(&Method::GET) } else { None };
            let options = self.options.get(method).or(fallback).copied().unwrap_or_default();
            let durations = metrics.durations(name, self.template.clone());
            let calls = metrics.calls(self.template.clone());
            let deadline_left = metrics.deadline_left(name, &self.template);
            let span_name = format!("{name} {}", self.template).into();
            let active = metrics.active(name);
            Arc::new(MethodState { name, span_name, options, active, durations, calls, deadline_left })
        };
        self.methods[index].get_or_init(make).clone()
    }
}

impl MethodState {
    pub(super) fn options(&self) -> RouteOptions {
        self.options
    }
}
