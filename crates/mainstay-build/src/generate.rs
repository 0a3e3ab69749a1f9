//! The code of a service: its trait, what serves it, and its client.

use std::fmt::Write;

use prost_build::{Method, Service, ServiceGenerator};

pub(crate) struct Generator {
    /// The path of `mainstay-grpc`, as `::mainstay::grpc`.
    pub(crate) runtime: String,
    /// The file with the descriptors, next to the code.
    pub(crate) descriptors: String,
}

impl ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, buf: &mut String) {
        // A `String` takes everything.
        let _ = self.write_trait(&service, buf).and_then(|()| self.write_server(&service, buf));
        let _ = self.write_client(&service, buf);
    }

    fn finalize_package(&mut self, _package: &str, buf: &mut String) {
        let _ = writeln!(
            buf,
            "/// The descriptors of this package's files and of what they import.\n\
             pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{}\"));",
            self.descriptors
        );
    }
}

/// What goes in and out of a method, as the word for its kind.
fn kind(method: &Method) -> &'static str {
    match (method.client_streaming, method.server_streaming) {
        (false, false) => "unary",
        (false, true) => "server_streaming",
        (true, false) => "client_streaming",
        (true, true) => "bidi_streaming",
    }
}

fn full_name(service: &Service) -> String {
    match service.package.as_str() {
        "" => service.proto_name.clone(),
        package => format!("{package}.{}", service.proto_name),
    }
}

impl Generator {
    fn write_trait(&self, service: &Service, buf: &mut String) -> std::fmt::Result {
        let runtime = &self.runtime;
        service.comments.append_with_indent(0, buf);
        writeln!(buf, "///\n/// Implement it, and serve it by [`{}Server::new`].", service.name)?;
        writeln!(buf, "pub trait {}: Send + Sync + 'static {{", service.name)?;
        for method in &service.methods {
            method.comments.append_with_indent(1, buf);
            let argument = match method.client_streaming {
                true => format!("requests: {runtime}::Incoming<{}>", method.input_type),
                false => format!("request: {}", method.input_type),
            };
            let answer = match method.server_streaming {
                true => format!("{runtime}::Outgoing<{}>", method.output_type),
                false => method.output_type.clone(),
            };
            writeln!(
                buf,
                "    fn {}(&self, ctx: &{runtime}::core::Context, {argument}) -> impl ::core::future::Future<Output = \
                 {runtime}::core::Result<{answer}>> + Send;",
                method.name
            )?;
        }
        writeln!(buf, "}}")
    }

    fn write_server(&self, service: &Service, buf: &mut String) -> std::fmt::Result {
        let (runtime, name) = (&self.runtime, &service.name);
        writeln!(buf, "/// Serves what implements [`{name}`].\npub struct {name}Server;\nimpl {name}Server {{")?;
        writeln!(buf, "    /// The service, for `App::grpc` or [`Grpc::service`]({runtime}::Grpc::service).")?;
        writeln!(buf, "    #[allow(clippy::new_ret_no_self, reason = \"it names what it makes\")]")?;
        writeln!(buf, "    pub fn new(service: impl {name}) -> {runtime}::Service {{")?;
        writeln!(buf, "        Self::shared(::std::sync::Arc::new(service))\n    }}")?;
        writeln!(buf, "    /// As `new`, for one that others hold too.")?;
        writeln!(buf, "    pub fn shared<S: {name}>(service: ::std::sync::Arc<S>) -> {runtime}::Service {{")?;
        writeln!(buf, "        {runtime}::Service::new({:?}, FILE_DESCRIPTOR_SET)", full_name(service))?;
        for method in &service.methods {
            writeln!(
                buf,
                "            .{kind}({proto:?}, {{ let service = service.clone(); move |ctx: {runtime}::core::Context, \
                 request| {{ let service = service.clone(); async move {{ service.{name}(&ctx, request).await }} }} }})",
                kind = kind(method),
                proto = method.proto_name,
                name = method.name,
            )?;
        }
        writeln!(buf, "    }}\n}}")
    }

    fn write_client(&self, service: &Service, buf: &mut String) -> std::fmt::Result {
        let (runtime, name) = (&self.runtime, &service.name);
        writeln!(buf, "/// Calls [`{name}`] elsewhere. A clone shares the connections.")?;
        writeln!(buf, "#[derive(Clone, Debug)]\npub struct {name}Client({runtime}::Channel);\nimpl {name}Client {{")?;
        writeln!(buf, "    /// A client over `channel`.")?;
        writeln!(buf, "    pub fn new(channel: {runtime}::Channel) -> Self {{\n        Self(channel)\n    }}")?;
        for method in &service.methods {
            method.comments.append_with_indent(1, buf);
            let (argument, given) = match method.client_streaming {
                true => {
                    let stream = format!("{runtime}::Stream<Item = {}> + Send + 'static", method.input_type);
                    (format!("requests: impl {stream}"), "requests")
                }
                false => (format!("request: {}", method.input_type), "request"),
            };
            let answer = match method.server_streaming {
                true => format!("{runtime}::Incoming<{}>", method.output_type),
                false => method.output_type.clone(),
            };
            writeln!(
                buf,
                "    pub async fn {}(&self, ctx: &{runtime}::core::Context, {argument}) -> {runtime}::core::Result<{answer}> \
                 {{\n        self.0.{}(ctx, {:?}, {given}).await\n    }}",
                method.name,
                kind(method),
                format!("/{}/{}", full_name(service), method.proto_name),
            )?;
        }
        writeln!(buf, "}}")
    }
}
