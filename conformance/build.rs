//! Generates the code of the gRPC service under test. And a new migration file has to rebuild the program that embeds it.

fn main() -> Result<(), mainstay_build::Error> {
    println!("cargo::rerun-if-changed=migrations");
    println!("cargo::rerun-if-changed=ledger");
    mainstay_build::compile(&["proto/calls.proto", "proto/greet.proto"], &["proto"])
}
