//! [`Loader`]: finds the layers of a program's settings and lays them on top of each other.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::environment::{self, Variables};
use super::fault::{self, Fault};
use super::node::{Node, Source};
use super::{Sources, yaml};
use crate::Result;

/// The largest settings file that is read. It guards against a path that names something else, as `/dev/zero`.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Finds the settings of a program. Later layers win over earlier ones, key by key:
///
/// 1. the defaults of the types that [`Sources::section`] reads into;
/// 2. the file: that of [`Loader::config_file`], else of the variable `SHOP_CONFIG`, else `config.yaml` if there is one;
/// 3. the file beside it with the environment's name in it, as `config.production.yaml`, if the variable `SHOP_ENV`
///    names one and the file exists;
/// 4. well-known variables: [`Loader::alias`];
/// 5. `SHOP_<SECTION>__<KEY>`, deeper keys by more double underscores;
/// 6. what the program sets itself: [`Loader::set`].
#[derive(Debug)]
pub struct Loader {
    prefix: String,
    config_file: Option<PathBuf>,
    directory: PathBuf,
    environment: Option<Variables>,
    defaults: Vec<(String, String)>,
    aliases: Vec<(String, String)>,
    overrides: Vec<(String, String)>,
}

impl Loader {
    /// For the program `name`: `shop` is configured by variables that start with `SHOP_`.
    pub fn new(name: &str) -> Self {
        let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        Self {
            prefix: format!("{}_", name.chars().map(upper).collect::<String>()),
            config_file: None,
            directory: PathBuf::new(),
            environment: None,
            defaults: Vec::new(),
            aliases: Vec::new(),
            overrides: Vec::new(),
        }
    }

    /// The file that the command line names, if it does. That it doesn't exist is then an error.
    #[must_use]
    pub fn config_file(mut self, path: Option<PathBuf>) -> Self {
        self.config_file = path;
        self
    }

    /// Where `config.yaml` is looked for when nobody names a file. By default the working directory.
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = path.into();
        self
    }

    /// Reads these variables instead of the process's own.
    #[must_use]
    pub fn environment<N: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.environment = Some(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect());
        self
    }

    /// Gives `key` a default of the program's own, below all layers and above the default of the section's type.
    #[must_use]
    pub fn default_value(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.defaults.push((key.into(), value.into()));
        self
    }

    /// Reads `key` from the well-known `variable` too, as `database.url` from `DATABASE_URL`.
    ///
    /// `SHOP_DATABASE__URL` wins over it, and a program that reads no section `database` ignores it.
    #[must_use]
    pub fn alias(mut self, variable: impl Into<String>, key: impl Into<String>) -> Self {
        self.aliases.push((variable.into(), key.into()));
        self
    }

    /// Sets `key` above all layers, written as in a variable: for command-line flags and for tests.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into();
        self.overrides.retain(|(other, _)| *other != key);
        self.overrides.push((key, value.into()));
        self
    }

    /// Reads all layers.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::Code::InvalidArgument) with everything that is wrong with files and variables;
    /// whether values fit is for [`Sources::section`] to say.
    pub fn load(self) -> Result<Sources> {
        let mut variables = self.environment.unwrap_or_else(|| std::env::vars_os().collect());
        variables.sort(); // so that two variables that contradict each other are always reported in the same order
        let mut faults = Vec::new();
        let mut root = Node::empty_map();
        for (key, value) in self.defaults {
            let segments: Vec<&str> = key.split('.').collect();
            faults.extend(root.insert(&segments, Node::text(value, Source::Default)).err());
        }

        let named = self.config_file.map(|path| (path, "--config".to_owned())).or_else(|| {
            let variable = format!("{}CONFIG", self.prefix);
            environment::variable(&variables, &variable).map(|path| (path.into(), variable))
        });
        let (path, named_by) = match named {
            Some((path, by)) => (path, Some(by)),
            None => (self.directory.join("config.yaml"), None),
        };
        let mut add = |file: Result<Option<Node>, Fault>| match file {
            Ok(node) => node.into_iter().for_each(|node| root.merge(node)),
            Err(fault) => faults.push(fault),
        };
        add(read_file(&path, named_by.as_deref()));
        match environment_name(&variables, &self.prefix) {
            Ok(Some(name)) => add(read_file(&beside(&path, name), None)),
            Ok(None) => {}
            Err(fault) => add(Err(fault)),
        }
        let aliases = environment::aliases(&variables, &self.aliases, &mut faults);
        root.merge(aliases);
        let settings = environment::settings(&variables, &self.prefix, &mut faults);
        root.merge(settings);
        let mut overrides = Node::empty_map();
        for (key, value) in self.overrides {
            let segments: Vec<&str> = key.split('.').collect();
            faults.extend(overrides.insert(&segments, Node::text(value, Source::Program)).err());
        }
        root.merge(overrides);

        if faults.is_empty() { Ok(Sources::new(root, self.prefix)) } else { Err(fault::into_error(&faults)) }
    }
}

/// The file at `path`, or `None` if it may be absent and is.
fn read_file(path: &Path, named_by: Option<&str>) -> Result<Option<Node>, Fault> {
    let problem = |problem: String| Fault::new(format!("{}: {problem}", path.display()));
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)) {
        Ok(_) if bytes.len() as u64 > MAX_FILE_BYTES => return Err(problem("is larger than 1 MiB".to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return match named_by {
                Some(by) => Err(problem(format!("no such file, but {by} names it"))),
                None => Ok(None),
            };
        }
        Err(error) => return Err(problem(format!("can't be read: {error}"))),
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        problem(format!("line {} is not valid UTF-8", line + 1))
    })?;
    yaml::parse(&text, path).map(Some)
}

/// What `SHOP_ENV` says, if it is a word: it becomes a part of a file's name.
fn environment_name<'a>(variables: &'a Variables, prefix: &str) -> Result<Option<&'a str>, Fault> {
    let variable = format!("{prefix}ENV");
    let Some(value) = environment::variable(variables, &variable) else { return Ok(None) };
    let word = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    match value.to_str().filter(word) {
        Some(name) => Ok(Some(name)),
        None => {
            let problem = "expected the name of an environment such as `production`: letters, digits, `-` and `_`";
            Err(Fault::at("", &environment::source_of(&variable), problem))
        }
    }
}

/// `config.production.yaml` for `config.yaml`.
fn beside(path: &Path, environment: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or(OsStr::new("config")).to_owned();
    name.push(format!(".{environment}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}
