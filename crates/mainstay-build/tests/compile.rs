//! What is made of proto files, and what is said about those that are wrong.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lint's allowance for tests does not reach")]

use std::fs;
use std::path::Path;

use mainstay_build::Compiler;
use prost::Message;
use prost_types::FileDescriptorSet;

const GOOD: &str = r#"syntax = "proto3";
package things.v1;
import "google/protobuf/timestamp.proto";
// Keeps things.
service Things {
  // Shows one.
  rpc Get(Thing) returns (Thing);
  rpc Watch(Thing) returns (stream Thing);
  rpc Put(stream Thing) returns (Thing);
  rpc Swap(stream Thing) returns (stream Thing);
}
message Thing { string name = 1; google.protobuf.Timestamp at = 2; }
"#;

/// Compiles `text` as `proto/things.proto` below a folder; the generated code, or what is said.
fn compile(text: &str, folder: &Path) -> Result<String, String> {
    let protos = folder.join("proto");
    fs::create_dir_all(&protos).unwrap();
    fs::write(protos.join("things.proto"), text).unwrap();
    let compiled = Compiler::new().runtime("::lib").compile_to(
        folder,
        &[protos.join("things.proto")],
        std::slice::from_ref(&protos),
    );
    compiled.map_err(|error| error.to_string())?;
    Ok(fs::read_to_string(folder.join("things.v1.rs")).unwrap())
}

#[test]
fn a_service_becomes_a_trait_and_what_serves_it() {
    let folder = tempfile::tempdir().unwrap();
    let code = compile(GOOD, folder.path()).unwrap();
    for line in [
        "/// Keeps things.",
        "pub trait Things: Send + Sync + 'static {",
        "fn get(&self, ctx: &::lib::core::Context, request: Thing) -> impl ::core::future::Future<Output = ::lib::core::Result<Thing>> + Send;",
        "fn put(&self, ctx: &::lib::core::Context, requests: ::lib::Incoming<Thing>)",
        "Output = ::lib::core::Result<::lib::Outgoing<Thing>>> + Send;",
        ".bidi_streaming(\"Swap\",",
        "::lib::well_known::Timestamp",
        "include_bytes!(concat!(env!(\"OUT_DIR\"), \"/things.descriptors\"))",
    ] {
        assert!(code.contains(line), "{line} is not in\n{code}");
    }
    let descriptors = fs::read(folder.path().join("things.descriptors")).unwrap();
    let files = FileDescriptorSet::decode(&*descriptors).unwrap().file;
    let names: Vec<_> = files.iter().map(|file| file.name()).collect();
    assert_eq!(names, ["google/protobuf/timestamp.proto", "things.proto"]);
    assert!(files.iter().all(|file| file.source_code_info.is_none()));
}

#[test]
fn mistakes_are_told_with_file_line_and_column() {
    for (good, bad, place, what) in [
        ("returns (stream Thing);\n  rpc Put", "returns (stream Thang);\n  rpc Put", ":8:36: ", "Thang"),
        ("string name = 1;", "string name = ;", ":12:31: ", "expected"),
        ("string name = 1;", "string name = 2;", ":12:", "2"),
        ("google/protobuf/timestamp.proto", "nowhere.proto", ":3:1: ", "nowhere.proto"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let said = compile(&GOOD.replace(good, bad), folder.path()).unwrap_err();
        let file = folder.path().join("proto/things.proto");
        assert!(said.starts_with(&format!("{}{place}", file.display())), "{said}");
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Compiler::new().compile_to(folder.path(), &["nowhere/x.proto"], &["nowhere"]).unwrap_err();
    assert!(error.to_string().contains("x.proto"), "{error}");
}
