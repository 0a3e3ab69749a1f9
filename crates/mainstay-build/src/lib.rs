//! Compiles `.proto` files in a `build.rs`, with no `protoc` on the machine: messages, a service trait and a client for
//! each service, and the descriptors that reflection shows.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), mainstay_build::Error> {
//!     mainstay_build::compile(&["proto/shop.proto"], &["proto"])
//! }
//! ```
//!
//! and in the service, for the package `shop.v1`:
//!
//! ```text
//! mainstay::grpc::include_proto!(pub mod v1, "shop.v1");
//! ```
//!
//! A service `Orders` of the file becomes the trait `Orders`, which you implement with `Context`, messages and
//! `mainstay::Result`; `OrdersServer::new(yours)`, which `App::grpc` takes; and `OrdersClient`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message;
use prost_types::FileDescriptorSet;

mod generate;
mod library;

/// Compiles `protos`, whose imports are looked for in the folders `includes`, into the build's own folder.
///
/// # Errors
/// The first mistake in a file, as `proto/shop.proto:12:3: name 'Ordr' is not defined`; a file that can't be read or
/// written.
pub fn compile(protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<(), Error> {
    let out =
        env::var_os("OUT_DIR").ok_or_else(|| Error("OUT_DIR is not set: call this from a build.rs".to_owned()))?;
    let files = Compiler::new().compile_to(Path::new(&out), protos, includes)?;
    for file in files {
        println_to_cargo(&file);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]
fn println_to_cargo(file: &Path) {
    println!("cargo::rerun-if-changed={}", file.display());
}

/// Compiles with other choices than [`compile`] makes.
#[derive(Clone, Debug, Default)]
pub struct Compiler {
    runtime: Option<String>,
}

impl Compiler {
    /// The choices of [`compile`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Where generated code finds `mainstay-grpc`. Without it, it is `::mainstay_grpc` in a package that depends on that
    /// crate itself, and `::mainstay::grpc` in any other.
    #[must_use]
    pub fn runtime(mut self, path: impl Into<String>) -> Self {
        self.runtime = Some(path.into());
        self
    }

    /// As [`compile`], into the folder `out`. Returns every file that was read, so that a build script can watch them.
    ///
    /// # Errors
    /// As [`compile`].
    pub fn compile_to(
        &self,
        out: &Path,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<Vec<PathBuf>, Error> {
        let runtime = self.runtime.clone().unwrap_or_else(library::runtime);
        let mut compiler = protox::Compiler::new(includes).map_err(|error| Error::of_proto(&error, includes))?;
        compiler.include_source_info(true).include_imports(true);
        compiler.open_files(protos).map_err(|error| Error::of_proto(&error, includes))?;
        let files = compiler.files().filter_map(|file| file.path().map(Path::to_owned)).collect();
        let descriptors = compiler.file_descriptor_set();

        let name = format!("{}.descriptors", stem(protos));
        write(&out.join(&name), &without_sources(&descriptors).encode_to_vec())?;
        let mut config = prost_build::Config::new();
        config
            .out_dir(out)
            .enable_type_names()
            .prost_path(format!("{runtime}::prost"))
            .prost_types_path(format!("{runtime}::well_known"))
            .service_generator(Box::new(generate::Generator { runtime, descriptors: name }));
        config.compile_fds(descriptors).map_err(|error| Error(format!("generating code: {error}")))?;
        Ok(files)
    }
}

/// What distinguishes the calls of one build script.
fn stem(protos: &[impl AsRef<Path>]) -> String {
    let first = protos.first().and_then(|proto| proto.as_ref().file_stem());
    first.map_or_else(|| "empty".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// Reflection shows no comments, so that the program needn't carry them.
fn without_sources(descriptors: &FileDescriptorSet) -> FileDescriptorSet {
    let mut descriptors = descriptors.clone();
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    descriptors
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(|error: io::Error| Error(format!("writing {}: {error}", path.display())))
}

/// What is wrong, and where: the file as the build script named it, line and column.
///
/// It prints the same either way, so that a `main` that returns it shows what a person needs.
pub struct Error(String);

impl Error {
    fn of_proto(error: &protox::Error, includes: &[impl AsRef<Path>]) -> Self {
        // "shop.proto:3:7: …", where the file is named as an import names it.
        let text = format!("{error:?}");
        let text = text.trim_end();
        let found = error.file().and_then(|file| {
            let below = includes.iter().map(|folder| folder.as_ref().join(file)).find(|path| path.exists())?;
            Some(format!("{}{}", below.display(), text.strip_prefix(file)?))
        });
        Self(found.unwrap_or_else(|| text.to_owned()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
