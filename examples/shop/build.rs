//! Generates the code of the gRPC service. And a new migration file has to rebuild the program that embeds it.

fn main() -> Result<(), mainstay_build::Error> {
    println!("cargo::rerun-if-changed=migrations");
    mainstay_build::compile(&["proto/shop.proto"], &["proto"])
}
