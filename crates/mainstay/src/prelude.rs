//! What a service's files begin with: `use mainstay::prelude::*;`.

pub use std::future::Future;

pub use garde::Validate;
pub use jiff::Timestamp;
pub use uuid::Uuid;

pub use crate::App;
pub use mainstay_core::{
    Code, Component, Context, Error, FieldViolation, Group, Result, ResultExt, Singleflight, WorkerPool, fan_in,
    fan_out, fan_out_unordered,
};
pub use mainstay_events::{Consumer, Event, Events, Permanent, Publish};
pub use mainstay_http::axum::extract::State;
pub use mainstay_http::routing::{delete, get, patch, post, put};
pub use mainstay_http::{Created, Json, NoContent, Path, Query, Routes, Upserted};
pub use mainstay_sql::{Db, FromRow, Sql, Tx, migrations, sql, values};
