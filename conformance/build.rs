//! A new migration file has to rebuild the program that embeds it.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
    println!("cargo::rerun-if-changed=ledger");
}
