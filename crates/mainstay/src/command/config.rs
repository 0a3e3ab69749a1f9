//! `config`: every setting in effect.

use mainstay_core::Result;

use super::print::{out, table};
use crate::configuration::Configuration;

pub(crate) fn config<S>(configuration: &Configuration<S>) -> Result<()> {
    let rows: Vec<_> = configuration
        .effective
        .iter()
        .map(|setting| [setting.key.clone(), setting.value.clone(), setting.source.to_string()])
        .collect();
    out(&table(&rows))
}
