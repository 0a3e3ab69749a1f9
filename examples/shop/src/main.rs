//! The shop's program: everything is in the library, so that tests can boot it.

use std::process::ExitCode;

fn main() -> ExitCode {
    mainstay::run("shop", shop::build)
}
