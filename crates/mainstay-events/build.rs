//! A new migration is seen by `migrations!` only when this says so.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
